"""Time of one routing decision and one dispatch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from router import policies
from router.choices import eligible
from router.constraints import Constraints, Floor
from router.dispatch import Moment, dispatch
from router.menu import Menu
from router.pace import Pace
from router.queue import Waiting
from router.route import Policy, route
from router.scheduler import Scheduler
from router.simulate.replay import Model
from router.snapshot import idle
from router.telemetry import Telemetry
from tests.router.builders import menu, offer

_ROUNDS = 9
_CALLS = 2000
_HURRY = Constraints(max_latency_ms=20.0, min_accuracy=Floor(0.91), max_cost_usd_per_million=2.0)


def decisions(variants: int = 20) -> dict[str, float]:
    """Median time in µs of each kind of decision over `variants` variants."""
    plate = _menu(variants)
    snapshot = idle(frozenset(plate.by_name))
    policy = Policy()
    demands = {
        "route, nothing demanded": Constraints(),
        "route, deadline, floor and cap": _HURRY,
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
    for queued in (32, 1000, 10_000):
        queue = _queue(plate, queued)
        scheduler = _scheduler(plate, policy)
        scheduler.submit(queue, 0.0)
        call = _ticking(partial(scheduler.route, "m", _HURRY, 1))
        figures[f"route, {queued} queued"] = _median_us(call)
        moment = Moment(
            now_s=0.0,
            lane_free_in_ms=(0.0, 5.0),
            paces={"m": Pace(plate, {}, snapshot.ready)},
            expected=scheduler.queue.expected(0.0),
            overhead_ms=0.5,
        )
        figures[f"dispatch, {queued} queued"] = _median_us(
            partial(dispatch, queue, moment), calls=200
        )
    return figures


def _scheduler(plate: Menu, policy: Policy) -> Scheduler:
    return Scheduler(
        {"m": Model(plate, frozenset(plate.by_name))},
        Telemetry(),
        policies.get("gearshift"),
        policy,
        lanes=2,
        max_batch=32,
    )


def _ticking(decide: Callable[[float], object]) -> Callable[[], object]:
    """`decide` by the clock, from 0: what was planned grows old as it does in the gateway."""
    began_s = time.perf_counter()
    return lambda: decide(time.perf_counter() - began_s)


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
    """Requests of ten kinds, each with another floor and deadline."""
    kinds = [
        eligible(Constraints(min_accuracy=Floor(0.9 + 0.004 * n)), "accuracy", plate, 0.005, 1)
        for n in range(10)
    ]
    return sorted(
        Waiting(deadline, number, 1, deadline, choices, choices.offers[0].name)
        for number in range(length)
        for deadline in (0.05 + (number * 7919 % length) * 1e-4,)
        for choices in (kinds[number % 10].choices,)
    )


def _median_us(call: Callable[[], object], calls: int = _CALLS) -> float:
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - started) / calls * 1e6)
    return statistics.median(rounds)
