"""The page at `/`: what is served, how accurate, fast and dear it is, and how to call it.

    GET /                          the page: HTML and style in one answer, no script
    GET /models/M/frontier.png     the picture that `gearshift compress` drew beside the variants
    GET /models/M/sample.json      a request body to try: the store's own, or one of zeros

Everything the page shows comes from cards that were checked, and is escaped all the same.
"""

from __future__ import annotations

import base64
import hashlib
import math
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from gateway.about import VERSION
from gateway.fleet import ServedModel
from gateway.protocols import Parts
from gateway.service import Service
from gateway.tensors import dumps
from router.card import VariantCard

_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "page.css").read_text(encoding="utf-8")
_PAGE = Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_SAFE = {
    "content-security-policy": f"default-src 'none'; img-src 'self'; "
    f"style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

_PICTURE = "frontier.png"
_SAMPLE = "sample.json"


def mount(app: FastAPI, parts: Parts) -> None:
    """Add the page and the files that it shows."""
    service, store = parts.service, parts.settings.models

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        base = f"{request.url.scheme}://{request.url.netloc}"
        return HTMLResponse(_render(service, store, base), headers=_SAFE)

    @app.get("/models/{model}/" + _PICTURE, include_in_schema=False)
    async def picture(model: str) -> FileResponse:
        path = _beside(store, service.fleet.model(model), _PICTURE)
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type="image/png", headers=_SAFE)

    @app.get("/models/{model}/" + _SAMPLE, include_in_schema=False)
    async def sample(model: str) -> Response:
        served = service.fleet.model(model)
        path = _beside(store, served, _SAMPLE)
        if path is not None:
            return FileResponse(path, media_type="application/json", headers=_SAFE)
        return Response(dumps(_zeros(served)), media_type="application/json", headers=_SAFE)


def _beside(store: Path, served: ServedModel, name: str) -> Path | None:
    """A file beside the variants of a model that the fleet knows; never one that a link names."""
    path = store / served.name / name
    return path if path.is_file() and not path.is_symlink() else None


def _zeros(served: ServedModel) -> dict[str, Any]:
    inputs = []
    for spec in served.inputs:
        shape = [max(size, 1) for size in spec.shape]
        zero: Any = False if spec.datatype == "BOOL" else 0
        inputs.append(
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": shape,
                "data": [zero] * math.prod(shape),
            }
        )
    return {"inputs": inputs}


def _render(service: Service, store: Path, base: str) -> str:
    if service.stopping:
        state, good = "Stopping: running requests are finished, new ones refused.", False
    elif service.ready:
        state, good = "Ready.", True
    else:
        state, good = "Not ready: variants are loading, or one could not be loaded.", False
    return _PAGE.substitute(
        style=_STYLE,
        state=state,
        state_class="good" if good else "bad",
        version=escape(VERSION),
        models="\n".join(_section(served, store, base) for served in service.fleet.models()),
    )


def _section(served: ServedModel, store: Path, base: str) -> str:
    name = escape(served.name)
    task = next(iter(served.cards.values())).task
    if _beside(store, served, _PICTURE) is not None:
        picture = (
            f'<figure><img src="/models/{name}/{_PICTURE}" alt="Accuracy of each variant of '
            f'{name} against its latency and its cost; the table below holds the same figures">'
            "<figcaption>Up and to the left is better. Bars are 95 % intervals.</figcaption>"
            "</figure>"
        )
    else:
        picture = (
            '<p class="absent">No picture of the frontier yet: <code>gearshift compress</code> '
            "draws it beside the variants it builds.</p>"
        )
    cards = sorted(served.cards.values(), key=lambda card: -card.accuracy.value)
    rows = "\n".join(_row(card, served) for card in cards)
    return f"""<section>
<h2>{name}</h2>
<p class="quiet">{escape(task.metric)} on {task.samples:,} samples ({escape(task.split)}).
Latency is of one row on one thread, cost of a million such requests.</p>
{picture}
<div class="wide"><table>
<thead><tr><th>variant</th><th>{escape(task.metric)} [95 %]</th><th>p50 ms</th><th>p99 ms</th>
<th>USD per million</th><th>MB on disk</th><th class="text">engine</th><th class="text">state</th>
</tr></thead>
<tbody>
{rows}
</tbody></table></div>
{_calls(served, base)}
</section>"""


def _row(card: VariantCard, served: ServedModel) -> str:
    accuracy, first = card.accuracy, card.latency[0]
    state = served.states[card.variant]
    shown = "good" if state.state == "ready" else "bad"
    said = escape(f"{state.state}: {state.why}" if state.why else state.state)
    reference = ' <span class="quiet">reference</span>' if card.variant == card.reference else ""
    cost = served.menu.by_name[card.variant].cost_usd_per_million(1)
    return (
        f'<tr><td title="{escape(card.description)}">{escape(card.variant)}{reference}</td>'
        f"<td>{100 * accuracy.value:.2f} % "
        f"[{100 * accuracy.low:.2f}, {100 * accuracy.high:.2f}]</td>"
        f"<td>{first.p50_ms:.3g}</td><td>{first.p99_ms:.3g}</td>"
        f"<td>{cost:.3g}</td><td>{card.bytes_on_disk / 1e6:.2f}</td>"
        f'<td class="text">{escape(card.engine.name)}</td>'
        f'<td class="text {shown}">{said}</td></tr>'
    )


def _calls(served: ServedModel, base: str) -> str:
    """Commands to try, each selected whole by one click."""
    name = served.name
    sample = f"curl -s {base}/models/{name}/{_SAMPLE} > {name}.json"
    call = f"curl -si {base}/v2/models/{name}/infer --data @{name}.json"
    steps = [
        ("A request body to try", sample),
        (
            "At most 40 ms, at least 99 % of the reference's accuracy, as cheap as can be",
            f"{call} \\\n  -H 'Gearshift-Max-Latency-Ms: 40' -H 'Gearshift-Min-Accuracy: 99%' "
            "-H 'Gearshift-Optimize: cost'",
        ),
        ("The fastest, and the whole decision with it",
         f"{call} \\\n  -H 'Gearshift-Optimize: latency' -H 'Gearshift-Explain: true'"),
        ("More than any variant can promise: the answer says what would fit",
         f"{call} \\\n  -H 'Gearshift-Min-Accuracy: 0.9999'"),
    ]  # fmt: skip
    return "<h3>How to call</h3>\n" + "\n".join(
        f"<p>{escape(title)}</p>\n<pre><code>{escape(command)}</code></pre>"
        for title, command in steps
    )
