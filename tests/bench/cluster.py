"""What the simulated benches serve: six variants, three tenants, any number of lanes, shards.

Times are made so that the variant in the middle takes 10 ms a row: load 1 is 100 requests a second
for each lane.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random
from typing import Any

from router import policies
from router.chance import chance
from router.route import Policy
from router.simulate import arrivals, mix, table
from router.simulate.mix import Mix
from router.simulate.replay import Machine, Model, Outcome, replay
from router.simulate.service import Noise, drawer, service

PER_LANE_S = 100.0
"""Requests per s of one lane at load 1."""

# Accuracy, and ms a row in a large batch.
_VARIANTS = {
    "xl": (0.968, 32.0),
    "l": (0.962, 17.0),
    "m": (0.950, 10.0),
    "s": (0.935, 6.0),
    "xs": (0.910, 3.5),
    "nano": (0.880, 2.0),
}
# A row alone takes a quarter more than in a batch of 4; of a hundred batches one takes a quarter
# longer than the median.
_BATCHES = {1: 1.25, 4: 4.04, 32: 32.0}
_SCATTER = {"p50": 1.0, "p95": 1.15, "p99": 1.25}

TENANTS = """
[[tenant]]
name = "interactive"
share = 50
max_latency_ms = 100

[[tenant]]
name = "careful"
share = 30
max_latency_ms = 200
min_accuracy = "98%"

[[tenant]]
name = "batch"
share = 20
max_latency_ms = 500
min_accuracy = "96%"
optimize = "cost"
priority = "low"
"""

Split = Callable[[int, int], int]
"""Of a request's number and the number of shards, the request's shard."""


def by_request(number: int, shards: int) -> int:
    """A hash of the request: as good as random."""
    return int(chance(number) * shards)


_CLIENTS = 1000
_BUSY = list(accumulate(1 / rank for rank in range(1, _CLIENTS + 1)))


def by_client(number: int, shards: int) -> int:
    """A hash of the client, of 1,000; the second sends half as much as the first, and so on."""
    (client,) = Random(number).choices(range(_CLIENTS), cum_weights=_BUSY)
    return int(chance(client) * shards)


def replayed(
    shards: int,
    lanes: int,
    load: float,
    seconds: float,
    seed: int,
    *,
    split: Split = by_request,
    process: str = "poisson",
    who: Mix | None = None,
) -> list[Outcome]:
    """What becomes of `seconds` of traffic on `shards` shards of `lanes` lanes each.

    The traffic depends on the number of lanes in all, `load`, `seconds` and `seed` alone.

    Args:
        who: `MIX` unless given.
    """
    who = who or MIX
    rate_per_s = shards * lanes * load * PER_LANE_S
    rng = Random(f"traffic {seed}")
    times = arrivals.arrivals(
        process, rate_per_s=rate_per_s, requests=round(rate_per_s * seconds), rng=rng
    )
    tenants = mix.assign(who, len(times), rng)
    mine: list[list[int]] = [[] for _ in range(shards)]
    for number in range(len(times)):
        mine[split(number, shards)].append(number)
    return [
        outcome
        for shard, numbers in enumerate(mine)
        for outcome in _one(
            [times[n] for n in numbers], [tenants[n] for n in numbers], who, lanes, shard, seed
        )
    ]


def _one(
    times: Sequence[float],
    tenants: Sequence[int],
    who: Mix,
    lanes: int,
    shard: int,
    seed: int,
) -> list[Outcome]:
    return replay(
        times,
        tenants,
        who,
        {table.MODEL: Model(MENU, frozenset(MENU.by_name))},
        Machine(lanes, _DRAW),
        policies.get("gearshift"),
        Policy(accuracy_margin=0.0),
        Random(f"service {seed} {shard}"),
    )


def _table() -> str:
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "accuracy": accuracy,
            "latency_ms": {
                batch: {p: factor * rows * ms for p, factor in _SCATTER.items()}
                for batch, rows in _BATCHES.items()
            },
        }
        for name, (accuracy, ms) in _VARIANTS.items()
    ]
    return json.dumps(rows)


MIX = mix.parse(TENANTS, "tenants")
# The same where nobody optimises cost.
PROMPT = mix.parse(TENANTS.replace('optimize = "cost"\n', ""), "prompt")
_ROWS = table.parse(_table(), "variants")[table.MODEL]
MENU = table.menu(table.MODEL, _ROWS, percentile=99, usd_per_lane_hour=0.05, max_batch=32)
_DRAW = drawer({(table.MODEL, row.name): service(row.latency, Noise(), 32) for row in _ROWS})
