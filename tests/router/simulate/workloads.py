"""Small workloads of made-up variants."""

from __future__ import annotations

import json

from router.constraints import Constraints
from router.route import Policy
from router.simulate import table
from router.simulate.mix import Mix, single
from router.simulate.service import Noise, noisy, service
from router.simulate.table import Row
from router.simulate.trial import Workload

# Six variants as a real store has them: (accuracy, ms of a row in a large batch).
SIX = {
    "fp32": (0.935, 2.05),
    "bf16": (0.9348, 1.05),
    "int8": (0.933, 0.57),
    "pruned-int8": (0.928, 0.33),
    "distilled-int8": (0.915, 0.13),
    "tiny-int8": (0.88, 0.05),
}


EXACT = Noise("none")


def table_of(variants: dict[str, tuple[float, float]] = SIX, alone_ms: float = 0.1) -> str:
    """A table in which a batch takes `alone_ms` and so much for each row."""
    return json.dumps(
        {
            "variants": [
                {
                    "name": name,
                    "accuracy": accuracy,
                    "latency_ms": {str(rows): alone_ms + rows * ms for rows in (1, 8, 32)},
                }
                for name, (accuracy, ms) in variants.items()
            ]
        }
    )


def workload(
    arriving: str = "poisson",
    *,
    requests: int = 300,
    mix: Mix | None = None,
    variants: dict[str, tuple[float, float]] = SIX,
    noise: Noise = EXACT,
    slow_from_half: float = 1.0,
) -> Workload:
    """A workload of one model, with a deadline of 30 ms unless `mix` says."""
    ((model, rows),) = table.parse(table_of(variants), "t").items()
    known = tuple(Row(row.name, row.accuracy, noisy(row.latency, noise)) for row in rows)
    menu = table.menu(model, known, percentile=99, usd_per_lane_hour=0.05, max_batch=32)
    return Workload(
        arriving=arriving,
        requests=requests,
        mix=mix or single(Constraints(max_latency_ms=30.0)),
        menus={model: menu},
        services={(model, row.name): service(row.latency, noise, 32) for row in rows},
        policy=Policy(accuracy_margin=0.0),
        slow_from_half=slow_from_half,
    )
