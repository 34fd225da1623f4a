"""Where an efficient batch takes longer than the deadlines, requests are served in smaller ones."""

from __future__ import annotations

import json
from random import Random

from router import policies
from router.constraints import Constraints, Floor
from router.route import Policy
from router.simulate import table
from router.simulate.mix import single
from router.simulate.replay import Machine, Model, replay

LANES, MAX_BATCH = 4, 32
# A batch takes so many ms, and so many more for each row.
VARIANTS = {"large": (0.95, 1.0, 5.0), "medium": (0.93, 0.5, 2.5), "small": (0.90, 0.2, 1.0)}


def test_who_could_ride_in_a_small_batch_is_not_refused_for_a_large_one() -> None:
    """At four fifths of what the fastest that is accurate enough can do, few are.

    Foretold to ride in a batch of 32, longer than the deadline, nearly a quarter of them would be.
    """
    text = json.dumps(
        {
            "variants": [
                {
                    "name": name,
                    "accuracy": accuracy,
                    "latency_ms": {str(n): first + n * row for n in (1, MAX_BATCH)},
                }
                for name, (accuracy, first, row) in VARIANTS.items()
            ]
        }
    )
    ((model, rows),) = table.parse(text, "t").items()
    menu = table.menu(
        model, tuple(rows), percentile=99, usd_per_lane_hour=0.05, max_batch=MAX_BATCH
    )
    dice, arrivals = Random(1), [0.0]
    while arrivals[-1] < 2.0:
        arrivals.append(arrivals[-1] + dice.expovariate(0.8 * LANES * 1000 / 2.5))
    outcomes = replay(
        arrivals,
        [0] * len(arrivals),
        single(Constraints(max_latency_ms=60.0, min_accuracy=Floor(0.93))),
        {model: Model(menu, frozenset(menu.by_name))},
        Machine(
            LANES,
            lambda _, variant, count, __: menu.by_name[variant].typical_ms[count],
            max_batch=MAX_BATCH,
            overhead_ms=0.5,
        ),
        policies.get("gearshift"),
        Policy(),
        Random(2),
    )
    assert sum(outcome.kept for outcome in outcomes) >= 0.85 * len(outcomes)
    assert not any(outcome.verdict in ("late", "expired") for outcome in outcomes)
