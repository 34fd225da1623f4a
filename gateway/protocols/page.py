"""The page at `/`, for people: the variants, their picture, and how to call. No script in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from pathlib import Path
from string import Template

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException

from gateway.about import VERSION
from gateway.lifecycle.fleet import ServedModel, VariantState
from gateway.protocols import Parts
from gateway.service import Service
from router.menu import Offer

PICTURE_FILE = "frontier.png"

_PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
_STYLE = _PAGE.template.partition("<style>")[2].partition("</style>")[0]
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": f"default-src 'none'; img-src 'self'; "
    f"style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
# What a `Host` may look like; anything else is not repeated in a command to be copied.
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")

_WORDS = {
    "ready": ("good", "serves"),
    "loading": ("wait", "loading"),
    "evicted": ("wait", "evicted"),
    "failed": ("bad", "failed"),
}


def mount(app: FastAPI, parts: Parts) -> None:
    """Add the page and the pictures that it shows."""
    if parts.console is None:
        return
    service, store = parts.service, parts.settings.store

    # Neither is `async`: they read files, which FastAPI then does on another thread.
    @app.get("/", include_in_schema=False)
    def page(request: Request) -> HTMLResponse:
        host = request.headers.get("host", "")
        url = f"{request.url.scheme}://{host if _HOST.fullmatch(host) else 'localhost'}"
        return HTMLResponse(render(service, store, url), headers=_HEADERS)

    @app.get("/models/{model}/" + PICTURE_FILE, include_in_schema=False)
    def picture(model: str) -> FileResponse:
        found = _picture(store, service.fleet.model(model))
        if found is None:
            raise HTTPException(404, f"{model} has no picture")
        return FileResponse(
            found,
            media_type="image/png",
            headers={"x-content-type-options": "nosniff", "cache-control": "no-cache"},
        )


def render(service: Service, store: Path, url: str) -> str:
    """The page as it is now; `url` is where the reader found it."""
    models = service.fleet.models()
    states = [model.states[name] for model in models for name in model.builds]
    settled = sum(state.state != "loading" for state in states)
    refresh = ""
    if service.stopping:
        tone, status = "wait", "Stopping: running requests finish, new ones are refused"
    elif settled < len(states):
        tone, status = "wait", f"Loading: {settled} of {len(states)} variants are settled"
        refresh = '<meta http-equiv="refresh" content="2">\n'
    elif service.ready:
        serving = sum(state.state == "ready" for state in states)
        tone, status = "good", f"Ready: {serving} of {len(states)} variants serve"
    else:
        idle = ", ".join(model.name for model in models if not model.ready)
        tone, status = "bad", f"Not ready: nothing of {idle} serves"
    body = [_model(model, store, url) for model in models]
    body.append(_left_out(service.fleet.problems))
    return _PAGE.substitute(
        title="Gearshift: " + escape(", ".join(model.name for model in models)),
        refresh=refresh,
        tone=tone,
        status=escape(status),
        body="\n".join(body),
        version=escape(VERSION),
    )


def _model(model: ServedModel, store: Path, url: str) -> str:
    name = escape(model.name)
    card = next(iter(model.cards.values()))
    metric = card.task.metric.capitalize()
    rows = "\n".join(_row(model, offer, metric) for offer in model.menu.offers)
    source = "test samples"
    if card.task.clusters != card.task.samples:
        source += f" from {card.task.clusters:,} sources"
    return f"""<section class="model" aria-labelledby="model-{name}">
<h2 id="model-{name}">{name}</h2>
<p class="quiet">{_count(len(model.cards))}, measured on {card.task.samples:,} {source},
one thread of {escape(card.machine.cpu)}</p>
{_notice(model)}{_figure(model, store)}
<table role="table">
<caption>Brackets: 95 % interval. Latency: one row alone, on one thread, as the card says. Cost: one
row alone, at this server's price; in a batch it is less.</caption>
<thead role="rowgroup"><tr role="row">
<th role="columnheader" scope="col">Variant</th>
<th role="columnheader" scope="col">State</th>
<th role="columnheader" scope="col" class="figure">{escape(metric)}</th>
<th role="columnheader" scope="col" class="figure">p50 / p99</th>
<th role="columnheader" scope="col" class="figure">USD per million</th>
</tr></thead>
<tbody role="rowgroup">
{rows}
</tbody>
</table>
{_calls(model, url)}
</section>"""


def _count(variants: int) -> str:
    return "1 variant" if variants == 1 else f"{variants} variants"


def _notice(model: ServedModel) -> str:
    states = [state.state for state in model.states.values()]
    if "ready" in states:
        return ""
    if "loading" in states:
        text = "<strong>Loading.</strong> <span>Requests are answered 503 until a variant is warm. "
        return f'<p class="notice wait">{text}This page looks again by itself.</span></p>\n'
    if "evicted" in states:
        text = "<strong>Changing over.</strong> <span>Requests are answered 503 until the variant "
        return f'<p class="notice wait">{text}that is wanted more is warm.</span></p>\n'
    text = "<strong>Nothing serves.</strong> <span>Every variant failed to start; "
    return f'<p class="notice bad">{text}the table says why, and so does the log.</span></p>\n'


def _figure(model: ServedModel, store: Path) -> str:
    name = escape(model.name)
    if _picture(store, model) is None:
        return (
            '<p class="empty">No picture here. <code>gearshift compress</code> draws one beside '
            "the variants that it builds.</p>"
        )
    return f"""<figure>
<a href="/models/{name}/{PICTURE_FILE}"><img src="/models/{name}/{PICTURE_FILE}"
alt="Variants of {name}: accuracy against latency and against cost; the table has the same
figures."></a>
<figcaption>Up is more accurate, left is faster or cheaper. Drawn when the variants were
built.</figcaption>
</figure>"""


def _row(model: ServedModel, offer: Offer, metric: str) -> str:
    card, state = model.cards[offer.name], model.states[offer.name]
    point = card.latency[0]
    times = f"{point.p50_ms:.2f} / {point.p99_ms:.2f} ms"
    tag = '<span class="tag">reference</span>' if offer.name == model.reference else ""
    return f"""<tr role="row">
<th role="rowheader" scope="row">{escape(offer.name)}{tag}
<small>{escape(card.description)}</small></th>
{_state(state)}
<td role="cell" class="figure" data-label="{escape(metric)}"><div>{100 * offer.accuracy:.2f} %
<small>[{100 * offer.accuracy_low:.1f}, {100 * offer.accuracy_high:.1f}]</small></div></td>
<td role="cell" class="figure" data-label="p50 / p99">{times}</td>
<td role="cell" class="figure" data-label="USD per million">{offer.cost_usd_per_million(1):.3g}</td>
</tr>"""


def _state(state: VariantState) -> str:
    tone, word = _WORDS[state.state]
    why = f'<small class="why">{escape(state.why)}</small>' if state.why else ""
    return f"""<td role="cell" data-label="State"><div><span class="dot {tone}">{word}</span>
{why}</div></td>"""


def _calls(model: ServedModel, url: str) -> str:
    path = f"{url}/v2/models/{model.name}"
    return f"""<h3>How to call it</h3>
<p>40 ms, at least 99 % of the reference's accuracy, as cheap as can be (a body of zeros, made by
python3):</p>
<pre tabindex="0"><code>{escape(_body_command(model))} |
  curl -si {escape(path)}/infer --data @- \\
    -H 'Gearshift-Max-Latency-Ms: 40' \\
    -H 'Gearshift-Min-Accuracy: 99%' \\
    -H 'Gearshift-Optimize: cost'</code></pre>
<p>Who would answer, who would not, and why, without running anything:</p>
<pre tabindex="0"><code>curl -s {escape(path)}/decide --data '' \\
  -H 'Gearshift-Max-Latency-Ms: 5'</code></pre>
<p>Names, shapes and datatypes of the tensors:</p>
<pre tabindex="0"><code>curl -s {escape(path)}</code></pre>"""


def _body_command(model: ServedModel) -> str:
    """A command that prints a request of one row of zeros; short, whatever the input's size."""
    tensors = []
    for spec in model.inputs:
        shape = [1, *(max(size, 1) for size in spec.shape[1:])]
        zero = {"BOOL": "False", "BYTES": '""'}.get(spec.datatype, "0")
        product = "*".join(str(size) for size in shape)
        tensors.append(
            f'{{"name": {json.dumps(spec.name)}, "datatype": "{spec.datatype}",\n'
            f'    "shape": {shape}, "data": [{zero}] * ({product})}}'
        )
    # In single quotes for the shell, where only a single quote has a meaning.
    inputs = ",\n  ".join(tensors).replace("'", "'\\''")
    return f"python3 -c 'import json; print(json.dumps({{\"inputs\": [\n  {inputs}]}}))'"


def _left_out(problems: tuple[str, ...]) -> str:
    if not problems:
        return ""
    items = "\n".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f"""<section class="left-out" aria-labelledby="left-out">
<h2 id="left-out">Left out of the store</h2>
<p class="quiet">Not whole, or not what they say they are. They are not served.</p>
<ul class="why">
{items}
</ul>
</section>"""


def _picture(store: Path, model: ServedModel) -> Path | None:
    """The picture of a model of the fleet. A link could lead out of the store: not followed."""
    path = store / model.name / PICTURE_FILE
    return path if path.is_file() and not path.is_symlink() else None
