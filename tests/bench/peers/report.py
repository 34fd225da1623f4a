"""The tables of a run, as Markdown, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.pages import table
from tests.bench.peers.contract import Peer
from tests.bench.peers.measure import Cell, Turn, over_rounds
from tests.bench.replay import Replayed

OURS = "Gearshift"
_Turns = Mapping[str, Sequence[Turn]]


@dataclass(frozen=True)
class Target:
    """A figure of ours over the best peer's, in the form that suits that peer best.

    Attributes:
        form: ours; None for the better of them.
        most: whether the ratio must be at most `bound`, or else at least.
    """

    says: str
    form: str | None
    figure: Callable[[Cell], float]
    bound: float
    most: bool


_TARGETS = (
    Target(
        "requests/s, 32 connections, JSON", "json", lambda c: c.many.requests_per_second, 3, False
    ),
    Target(
        "requests/s, 32 connections, binary tensors",
        "binary",
        lambda c: c.many.requests_per_second,
        4,
        False,
    ),
    Target("p50, one connection", None, lambda c: c.one.p50_ms, 0.25, True),
    Target("p99 at 70 % of each one's own peak", None, lambda c: c.open.p99_ms, 0.5, True),
)


def ratios(turns: _Turns, own: str, target: Target) -> list[float]:
    """`own`'s over the best peer's, by round; a round where it or all peers failed has none."""
    best = min if target.most else max
    found = []
    for at, turn in enumerate(turns[own]):
        mine = [
            target.figure(cell) for form, cell in turn.cells.items() if target.form in (None, form)
        ]
        theirs = [
            target.figure(cell)
            for name, taken in turns.items()
            if not name.startswith(OURS)
            for cell in taken[at].cells.values()
            if _served(cell)
        ]
        if mine and theirs:
            found.append(best(mine) / best(theirs))
    return found


def _served(cell: Cell) -> bool:
    """Whether nearly all was answered: who refuses half is fast, and no measure for anybody."""
    asked = cell.many.requests_per_second * 0.01
    return cell.many.errors <= asked and cell.one.errors == 0


def tables(peers: Sequence[Peer], turns: _Turns, checks: Sequence[Replayed]) -> str:
    """All tables of a run."""
    parts = [
        table(
            ("ours to the best peer", "target", *_ours(turns)),
            [_judged(turns, target) for target in _TARGETS],
        ),
        "**32 connections, closed loop**\n",
        table(
            (
                "server",
                "request",
                "requests/s",
                "to ours in its best form",
                "p50 ms",
                "p99 ms",
                "errors",
            ),
            _many(peers, turns),
        ),
        "**One connection, closed loop**\n",
        table(("server", "request", "p50 ms", "p99 ms", "requests/s"), _one(peers, turns)),
        "**Open loop at 70 % of its own peak**\n",
        table(
            (
                "server",
                "request",
                "asked/s",
                "p50 ms",
                "p99 ms",
                "p99.9 ms",
                "sent late, p99 ms",
                "errors",
            ),
            [*_open(peers, turns), _checked(checks)],
        ),
        "**How each was set up**\n",
        table(
            ("server", "version", "JSON", "binary", "set up", "memory, MB"),
            [_setup(peer, turns[peer.name]) for peer in peers],
        ),
    ]
    failed = [
        f"- {name}, round {at + 1}: failed: {turn.failed.splitlines()[0][:300]}"
        for name, taken in turns.items()
        for at, turn in enumerate(taken)
        if turn.failed
    ]
    return "\n".join([*parts, *failed])


def _judged(turns: _Turns, target: Target) -> tuple[str, ...]:
    sign = "≤" if target.most else "≥"
    cells = []
    for own in _ours(turns):
        found = ratios(turns, own, target)
        if not found:
            cells.append("not measured")
            continue
        middle = statistics.median(found)
        met = middle <= target.bound if target.most else middle >= target.bound
        told = f"{middle:.2f} [{min(found):.2f}, {max(found):.2f}]"
        cells.append(f"{told} met" if met else f"{told} **missed**")
    return target.says, f"{sign} {target.bound:g}", *cells


def _ours(turns: _Turns) -> list[str]:
    return [name for name in turns if name.startswith(OURS)]


def _median(taken: Sequence[Turn], form: str, figure: Callable[[Cell], float]) -> float:
    return statistics.median(over_rounds(taken, form, figure))


def _rows(peers: Sequence[Peer], turns: _Turns) -> list[tuple[Peer, str, Sequence[Turn]]]:
    return [
        (peer, form, turns[peer.name])
        for peer in peers
        for form in peer.forms
        if any(form in turn.cells for turn in turns[peer.name])
    ]


def _many(peers: Sequence[Peer], turns: _Turns) -> list[tuple[str, ...]]:
    rows = _rows(peers, turns)
    own = max(
        (_median(taken, form, _rate) for peer, form, taken in rows if peer.name.startswith(OURS)),
        default=float("nan"),
    )
    return [
        (
            peer.name,
            peer.forms[form].says,
            f"{_median(taken, form, _rate):,.0f}",
            f"{_median(taken, form, _rate) / own:.2f}",
            f"{_median(taken, form, lambda c: c.many.p50_ms):.2f}",
            f"{_median(taken, form, lambda c: c.many.p99_ms):.2f}",
            f"{sum(over_rounds(taken, form, lambda c: c.many.errors)):.0f}",
        )
        for peer, form, taken in rows
    ]


def _rate(cell: Cell) -> float:
    return cell.many.requests_per_second


def _one(peers: Sequence[Peer], turns: _Turns) -> list[tuple[str, ...]]:
    return [
        (
            peer.name,
            peer.forms[form].says,
            f"{_median(taken, form, lambda c: c.one.p50_ms):.2f}",
            f"{_median(taken, form, lambda c: c.one.p99_ms):.2f}",
            f"{_median(taken, form, lambda c: c.one.requests_per_second):,.0f}",
        )
        for peer, form, taken in _rows(peers, turns)
    ]


def _open(peers: Sequence[Peer], turns: _Turns) -> list[tuple[str, ...]]:
    return [
        (
            peer.name,
            peer.forms[form].says,
            f"{_median(taken, form, lambda c: c.open.asked_per_second):,.0f}",
            f"{_median(taken, form, lambda c: c.open.p50_ms):.2f}",
            f"{_median(taken, form, lambda c: c.open.p99_ms):.2f}",
            f"{_median(taken, form, lambda c: c.open.p999_ms):.2f}",
            f"{_median(taken, form, lambda c: c.open.late_p99_ms):.2f}",
            f"{sum(over_rounds(taken, form, lambda c: c.open.errors)):.0f}",
        )
        for peer, form, taken in _rows(peers, turns)
    ]


def _checked(checks: Sequence[Replayed]) -> tuple[str, ...]:
    def median(figure: Callable[[Replayed], float]) -> float:
        return statistics.median(map(figure, checks))

    return (
        "*a bare route, to check the generator*",
        "raw bytes",
        f"{median(lambda c: c.asked_per_second):,.0f}",
        f"{median(lambda c: c.p50_ms):.2f}",
        f"{median(lambda c: c.p99_ms):.2f}",
        f"{median(lambda c: c.p999_ms):.2f}",
        f"{median(lambda c: c.late_p99_ms):.2f}",
        f"{sum(c.errors for c in checks)}",
    )


def _setup(peer: Peer, taken: Sequence[Turn]) -> tuple[str, ...]:
    memory = [turn.memory_mb for turn in taken if not turn.failed]
    forms = [peer.forms[form].says if form in peer.forms else "–" for form in ("json", "binary")]
    used = f"{statistics.median(memory):.0f}" if memory else "–"
    return peer.name, peer.version, *forms, peer.setup, used
