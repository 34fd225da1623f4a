"""Menus, snapshots and hypothesis strategies for the router's tests; no torch, no numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hypothesis import strategies as st

from router.constraints import Constraints, Floor
from router.menu import Menu, Offer
from router.snapshot import Snapshot, idle


def offer(
    name: str,
    accuracy: float = 0.9,
    *,
    half_width: float = 0.01,
    share_low: float | None = None,
    first_ms: float = 1.0,
    row_ms: float = 0.5,
    tail: float = 1.25,
    price: float = 1.0,
    max_batch: int = 8,
) -> Offer:
    """An offer whose batch of n rows takes first_ms + (n - 1) x row_ms at the median and `tail`
    times that at the promised percentile."""
    typical = (0.0, *(first_ms + row_ms * n for n in range(max_batch)))
    return Offer(
        name=name,
        accuracy=accuracy,
        accuracy_low=max(0.0, accuracy - half_width),
        accuracy_high=min(1.0, accuracy + half_width),
        share_low=accuracy if share_low is None else share_low,
        promised_ms=tuple(ms * tail for ms in typical),
        typical_ms=typical,
        usd_per_million_lane_ms=price,
    )


def menu(
    *offers: Offer,
    not_worse: Mapping[str, Mapping[str, float]] | None = None,
    reference: str = "",
    model: str = "m",
) -> Menu:
    """A menu of these offers, in the order that `router.menu` keeps."""
    ordered = tuple(sorted(offers, key=lambda o: (-o.accuracy, o.name)))
    return Menu(
        model, reference or ordered[0].name, ordered, not_worse or {}, {o.name: o for o in ordered}
    )


def quiet(menu: Menu) -> Snapshot:
    """Every variant ready, nothing queued."""
    return idle(frozenset(menu.by_name))


def scale(menu: Menu, factor: float) -> Menu:
    """The same menu on a machine `factor` times slower and as much cheaper by the hour."""
    return changed(
        menu,
        lambda offer: replace(
            offer,
            promised_ms=tuple(ms * factor for ms in offer.promised_ms),
            typical_ms=tuple(ms * factor for ms in offer.typical_ms),
            usd_per_million_lane_ms=offer.usd_per_million_lane_ms / factor,
        ),
    )


def changed(menu: Menu, change: Callable[[Offer], Offer]) -> Menu:
    """The same menu with every offer changed."""
    offers = tuple([change(offer) for offer in menu.offers])
    return replace(menu, offers=offers, by_name={offer.name: offer for offer in offers})


def dominated(better: Offer, name: str) -> Offer:
    """Slower, dearer and less accurate than `better`, by a little."""
    return replace(
        better,
        name=name,
        accuracy=better.accuracy - 0.01,
        accuracy_low=better.accuracy_low - 0.01,
        accuracy_high=better.accuracy_high - 0.01,
        share_low=better.share_low - 0.01,
        promised_ms=tuple(ms * 1.5 for ms in better.promised_ms),
        typical_ms=tuple(ms * 1.5 for ms in better.typical_ms),
        usd_per_million_lane_ms=better.usd_per_million_lane_ms + 0.01,
    )


NAMES = ("a", "b", "c", "d", "e", "f")

milliseconds = st.floats(0.01, 200.0)
scores = st.floats(0.0, 1.0)


@st.composite
def offers(draw: st.DrawFn, name: str) -> Offer:
    return offer(
        name,
        draw(scores),
        half_width=draw(st.floats(0.0, 0.2)),
        share_low=draw(st.floats(0.0, 1.0)),
        first_ms=draw(milliseconds),
        row_ms=draw(st.floats(0.0, 50.0)),
        tail=draw(st.floats(1.0, 5.0)),
        price=draw(st.floats(0.0, 10.0)),
    )


@st.composite
def menus(draw: st.DrawFn) -> Menu:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    listed = [draw(offers(name)) for name in names]
    # Paired differences consistent with the figures: the lower end is at most the difference.
    gaps = {
        best.name: {
            other.name: max(-1.0, other.accuracy - best.accuracy - draw(st.floats(0.0, 0.05)))
            for other in listed
            if other is not best and draw(st.booleans())
        }
        for best in listed
    }
    return menu(*listed, not_worse=gaps, reference=draw(st.sampled_from(names)))


@st.composite
def constraints(draw: st.DrawFn) -> Constraints:
    floors = st.builds(Floor, scores, st.booleans())
    return Constraints(
        max_latency_ms=draw(st.none() | milliseconds),
        min_accuracy=draw(st.none() | floors),
        max_cost_usd_per_million=draw(st.none() | st.floats(0.0, 500.0)),
        optimize=draw(st.sampled_from(["accuracy", "cost", "latency"])),
    )


@st.composite
def snapshots(draw: st.DrawFn, menu: Menu, *, all_ready: bool = False) -> Snapshot:
    names = [offer.name for offer in menu.offers]
    ready = frozenset(names) if all_ready else frozenset(draw(st.sets(st.sampled_from(names))))
    wait = draw(st.just(0.0) | st.floats(0.0, 50.0))
    overhead = draw(st.floats(0.0, 2.0))
    return Snapshot(
        wait_ms=wait,
        least_wait_ms=wait * draw(st.just(1.0) | st.floats(0.0, 1.0)),
        price=draw(st.just(0.0) | st.floats(0.0, 0.1)),
        waiting=draw(st.just(0) | st.integers(1, 100)),
        crowded=draw(st.booleans()),
        slowdown=draw(st.dictionaries(st.sampled_from(names), st.floats(0.5, 4.0))),
        tail=draw(st.just(1.0) | st.floats(0.5, 3.0)),
        margin=draw(st.just(1.0) | st.floats(0.5, 3.0)),
        overhead_ms=overhead,
        least_overhead_ms=overhead * draw(st.just(1.0) | st.floats(0.0, 1.0)),
        ready=ready,
    )
