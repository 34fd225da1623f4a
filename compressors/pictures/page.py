"""The frontier as a web page: one file that needs no server, no network and no script to be read.

Every text of a card is escaped: a card may come from anywhere. The script only shows the figures
of the point under the pointer; without it, each point has them as its title.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from compressors.pictures.figures import (
    Measure,
    beaten,
    beaten_everywhere,
    best_batch,
    how_timed,
    measures,
    reference_of,
    speedup,
    usd_per_million,
)
from compressors.pictures.scatter import digits, scatter
from compressors.record import EAGER
from router.card import Accuracy, LatencyPoint, PairedDifference, VariantCard

FILE = "frontier.html"

_TEMPLATE = Path(__file__).with_name("page.html")


def render(cards: Sequence[VariantCard], price_per_lane_hour: float) -> str:
    """The page of a model's variants.

    Raises:
        ValueError: the reference is not among them.
    """
    reference = reference_of(cards)
    rest = [card for card in cards if card is not reference]
    ordered = [
        reference,
        *sorted(rest, key=lambda card: -usd_per_million(card, price_per_lane_hour)),
    ]
    book = _Book(ordered, reference, price_per_lane_hour)
    task = reference.task
    dates = sorted({card.created[:10] for card in cards})
    machines = {
        f"{card.machine.cpu}, {card.machine.cores} cores, "
        f"{card.machine.memory_bytes / 1e9:.1f} GB of memory, {card.machine.system}"
        for card in cards
    }
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{reference.model}: what each variant gives and takes"),
        about=escape(
            f"{task.metric.capitalize()} on {task.samples:,} test samples from {task.clusters:,} "
            "independent sources. Times on one thread."
        ),
        metric=escape(task.metric.capitalize()),
        choices=_choices(book.measures),
        labels=_labels(book.measures),
        plots="\n".join(_plot(book, measure) for measure in book.measures),
        table=_table(book),
        details="\n".join(_details(card) for card in ordered),
        machine=escape(
            f"Measured on {'; '.join(sorted(machines))}. "
            f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, Gearshift "
            f"{', '.join(sorted({card.versions.get('gearshift', 'unknown') for card in cards}))}."
        ),
    )


class _Book:
    """The cards with what is worked out from all of them together."""

    def __init__(self, cards: Sequence[VariantCard], reference: VariantCard, price: float) -> None:
        self.cards, self.reference, self.price = cards, reference, price
        self.measures = measures(price)
        self.beaten = {measure.name: beaten(cards, measure) for measure in self.measures}
        self.beaten_everywhere = beaten_everywhere(cards, price)

    def figures(self, card: VariantCard) -> list[tuple[str, str]]:
        """What is said of a card in its row, as (heading, figure), without its name."""
        alone, best = card.latency[0], best_batch(card)
        pairs = [speedup(card, self.reference, point.batch) for point in (alone, best)]
        return [
            (f"{card.task.metric} %", _interval(card.accuracy)),
            ("Δ points", self._difference(card)),
            ("batch 1, p50 / p99 ms", _times(alone)),
            ("best batch, p50 / p99 ms", f"{best.batch}: {_times(best)}"),
            ("USD / M", digits(usd_per_million(card, self.price))),
            ("faster than float, batch 1 / best", _ratios(each for each, _ in pairs)),
            ("than eager, batch 1 / best", _ratios(each for _, each in pairs)),
            (
                "MB, memory / disk",
                f"{digits(card.resident_bytes / 1e6)} / {digits(card.bytes_on_disk / 1e6)}",
            ),
            ("beaten by", self.beaten_everywhere.get(card.variant, "–")),
        ]

    def _difference(self, card: VariantCard) -> str:
        if card is self.reference:
            return "reference"
        return _interval(card.paired, sign="+")


def _choices(offered: Sequence[Measure]) -> str:
    # One rule a measure: which plot is seen, and which label is marked. No script is needed.
    rules = [".plot:first-of-type { display: block; }"]
    for measure in offered:
        chosen = f"section:has(#by-{measure.name}:checked)"
        rules += [
            f"{chosen} .plot {{ display: none; }}",
            f"{chosen} #plot-{measure.name} {{ display: block; }}",
        ]
    rules += [
        ".choice:checked + label { color: var(--card); background: var(--accent); "
        "border-color: var(--accent); }",
        ".choice:focus-visible + label { outline: 2px solid var(--accent); outline-offset: 2px; }",
    ]
    return "\n".join(rules)


def _labels(offered: Sequence[Measure]) -> str:
    return "\n".join(
        f'<input class="choice" type="radio" name="measure" id="by-{measure.name}"'
        f"{' checked' if index == 0 else ''}>"
        f'<label for="by-{measure.name}">{measure.name}</label>'
        for index, measure in enumerate(offered)
    )


def _plot(book: _Book, measure: Measure) -> str:
    by = book.beaten[measure.name]

    def tip(card: VariantCard) -> str:
        lines = [card.variant, *(f"{what}: {figure}" for what, figure in book.figures(card)[:-1])]
        if card.variant in by:
            lines.append(f"beaten by {by[card.variant]} in {measure.name} and {card.task.metric}")
        return "\n".join(lines)

    drawing = scatter(book.cards, measure, by, tip)
    return (
        f'<div class="plot" id="plot-{measure.name}">{drawing}'
        f'<p class="axis up">{escape(book.reference.task.metric)}, %</p>'
        f'<p class="axis across">{escape(measure.title)}</p></div>'
    )


def _table(book: _Book) -> str:
    headings = [heading for heading, _ in book.figures(book.reference)]
    rows = []
    for card in book.cards:
        name = escape(card.variant)
        cells = "".join(
            f'<td data-label="{escape(heading)}"><span>{escape(figure)}</span></td>'
            for heading, figure in book.figures(card)
        )
        made = f"{_arithmetic(card)}, {card.engine.name}"
        faint = ' class="beaten"' if card.variant in book.beaten_everywhere else ""
        rows.append(
            f'<tr{faint}><th scope="row"><a href="#variant-{name}" data-variant="{name}">{name}'
            f"</a><small>{escape(made)}</small></th>{cells}</tr>"
        )
    head = "".join(f'<th scope="col">{_broken(heading)}</th>' for heading in headings)
    caption = (
        "Brackets: 95 % interval. Δ: difference to the reference on the same samples. Faster: than "
        "the reference on its best engine, and than PyTorch without one, by medians. USD / M: a "
        f"million rows in the best batch, at {book.price:g} USD per lane-hour. Beaten by: in "
        f"latency and in cost; such a variant is faint. {how_timed(book.cards)}"
    )
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Table of variants">'
        f'<table aria-describedby="legend"><thead><tr><th>variant</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="note" id="legend">{escape(caption)}</p>'
    )


def _broken(heading: str) -> str:
    """A heading of two parts on two lines."""
    first, _, second = heading.partition(", ")
    return escape(first) + (f"<small>{escape(second)}</small>" if second else "")


def _details(card: VariantCard) -> str:
    name = escape(card.variant)
    steps = "".join(
        f"<li><code>{escape(step.technique)}</code> {_settings(step.settings)}</li>"
        for step in card.recipe
    )
    beside = {point.batch: point.p50_ms for point in card.yardstick}
    refused = "".join(
        f"<li><b>{escape(engine)}</b>: {escape(why)}</li>" for engine, why in card.refused.items()
    )
    return (
        f'<details id="variant-{name}"><summary><b>{name}</b> {escape(card.description)}</summary>'
        f"<div><h3>Recipe</h3>"
        + (f"<ol>{steps}</ol>" if steps else "<p>The network as it is.</p>")
        + "<h3>Engines tried</h3>"
        + _grid(
            ("engine", "version", "format", "kernels", "validation %", "batch 1, p50 ms",
             "best batch, p50 ms", "disk MB", ""),
            _trials(card),
            text=4,
        )
        + (f"<h3>Engines that cannot run it</h3><ul>{refused}</ul>" if refused else "")
        + f"<h3>Latency on {escape(card.engine.name)}, ms</h3>"
        + _grid(
            ("batch", "p50", "p95", "p99", "spread", "runs", "reference in turn, p50"),
            [
                (str(p.batch), *map(digits, (p.p50_ms, p.p95_ms, p.p99_ms, p.spread_ms)),
                 f"{p.runs:,}", digits(beside[p.batch]) if beside else "–")
                for p in card.latency
            ],
            text=0,
        )
        + f'<p class="note">{escape(_made(card))}</p></div></details>'
    )  # fmt: skip


def _trials(card: VariantCard) -> list[tuple[str, ...]]:
    """A row for each engine that was measured."""
    rows = [
        (trial.name, trial.version, trial.format, trial.kernels,
         f"{100 * trial.validation:.2f}", trial.latency, trial.bytes_on_disk)
        for trial in card.engines
    ]  # fmt: skip
    own = card.engine
    if not rows:  # measured before a variant was lowered to several engines
        rows = [
            (own.name, own.version, own.format, own.kernels, "–", card.latency, card.bytes_on_disk)
        ]
    return [
        (
            f"{name} (no engine)" if name == EAGER else name,
            version,
            form,
            ", ".join(f"{count} {kind}" for kind, count in sorted(kernels.items())) or "–",
            validation,
            digits(points[0].p50_ms),
            _best(points),
            digits(disk / 1e6),
            "serves" if name == own.name else "",
        )
        for name, version, form, kernels, validation, points, disk in rows
    ]


def _best(points: Sequence[LatencyPoint]) -> str:
    best = min(points, key=lambda point: point.p50_ms / point.batch)
    return f"{best.batch}: {digits(best.p50_ms)}"


def _grid(headings: Sequence[str], rows: Iterable[Sequence[str]], text: int) -> str:
    """A table whose first `text` columns are words."""

    def row(cells: Sequence[str], tag: str, show: Callable[[str], str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if index < text else ''}>{show(cell)}</{tag}>"
            for index, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row(cells, 'td', escape)}</tr>" for cells in rows)
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{row(headings, "th", _broken)}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _settings(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{escape(key)} = {escape(json.dumps(v))}" for key, v in settings.items())


def _made(card: VariantCard) -> str:
    facts = [
        f"{card.parameters:,} parameters",
        f"computes in {_arithmetic(card)}",
        f"built in {digits(card.build_seconds)} s on {card.created}",
        f"seeds {', '.join(f'{name} {seed}' for name, seed in card.seeds.items()) or 'none'}",
        ", ".join(f"{name} {version}" for name, version in card.versions.items()),
    ]
    if card.engine.constructor:
        facts.insert(2, f"weights for the network of the task {card.engine.constructor}")
    return "; ".join(facts)


def _arithmetic(card: VariantCard) -> str:
    return card.precision + (f", weights in {card.weights}" if card.weights else "")


def _interval(found: Accuracy | PairedDifference, sign: str = "") -> str:
    low, high = 100 * found.low, 100 * found.high
    return f"{100 * found.value:{sign}.2f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _times(point: LatencyPoint) -> str:
    return f"{digits(point.p50_ms)} / {digits(point.p99_ms)}"


def _ratios(pair: Iterable[float | None]) -> str:
    return " / ".join("–" if each is None else f"{each:.1f}×" for each in pair)
