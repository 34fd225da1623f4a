"""Time of one routing decision and one dispatch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from router.constraints import Constraints, Floor
from router.dispatch import Pace, Waiting, dispatch, order
from router.menu import Menu
from router.route import Policy, route
from tests.router.builders import menu, offer, quiet

_ROUNDS = 9
_CALLS = 2000


def decisions(variants: int = 20) -> dict[str, float]:
    """Median time in µs of each kind of decision over `variants` variants."""
    plate = _menu(variants)
    snapshot = quiet(plate, lanes=2)
    policy = Policy()
    demands = {
        "route, nothing demanded": Constraints(),
        "route, deadline, floor and cap": Constraints(
            max_latency_ms=20.0, min_accuracy=Floor(0.91), max_cost_usd_per_million=2.0
        ),
        "route, cheapest over a relative floor": Constraints(
            optimize="cost", min_accuracy=Floor(0.9, relative=True)
        ),
        "route, refused with the nearest values": Constraints(
            max_latency_ms=0.01, min_accuracy=Floor(0.99)
        ),
    }
    figures = {
        name: _median_us(partial(route, wanted, plate, snapshot, policy))
        for name, wanted in demands.items()
    }
    paces = {"m": Pace(plate, {}, snapshot.ready)}
    for queued in (32, 1000, 10_000):
        queue = _queue(plate, queued)
        call = partial(dispatch, queue, 0.0, paces, max_batch=32, overhead_ms=0.5)
        figures[f"dispatch, {queued} queued"] = _median_us(call, calls=200)
    return figures


def _menu(variants: int) -> Menu:
    offers = [
        offer(
            f"v{number:02}",
            0.90 + 0.003 * number,
            first_ms=0.2 + 0.1 * number,
            row_ms=0.1 + 0.05 * number,
            max_batch=32,
        )
        for number in range(variants)
    ]
    gaps = {
        best.name: {other.name: other.accuracy - best.accuracy - 0.004 for other in offers}
        for best in offers
    }
    return menu(*offers, not_worse=gaps)


def _queue(plate: Menu, length: int) -> list[Waiting]:
    names = tuple(offer.name for offer in plate.offers)
    waiting = [
        Waiting(number, "m", 1, deadline, deadline, names[number % 10 :])
        for number in range(length)
        for deadline in (0.05 + (number * 7919 % length) * 1e-4,)
    ]
    return sorted(waiting, key=order)


def _median_us(call: Callable[[], object], calls: int = _CALLS) -> float:
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - started) / calls * 1e6)
    return statistics.median(rounds)
