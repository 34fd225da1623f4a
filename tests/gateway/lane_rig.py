"""Lanes in one process, of a store whose engine answers each row with its own first value."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gateway import hosts
from gateway.execution.lanes import Lanes
from gateway.execution.tickets import Result, Ticket
from gateway.lifecycle import catalog
from gateway.lifecycle.fleet import Fleet
from gateway.messages import InferRequest
from router import policies
from router.breaker import Breakers, Terms
from router.choices import in_order
from router.constraints import Constraints
from router.decision import Decision
from router.route import Policy
from router.scheduler import Scheduler
from router.telemetry import Telemetry

MAX_BATCH = 4
PATIENCE_S = 60.0
_numbers = iter(range(1, 10**6))


class Told:
    """What the lanes told of their batches.

    Attributes:
        batches: (model, variant, rows) of each.
        failed: (model, variant, requests that were run again) of each that failed.
        lost: how often a lane was lost.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[str, str, int]] = []
        self.failed: list[tuple[str, str, int]] = []
        self.lost = 0

    def batch(self, model: str, variant: str, rows: int, _: float) -> None:
        self.batches.append((model, variant, rows))

    def batch_failed(self, model: str, variant: str, retried: int) -> None:
        self.failed.append((model, variant, retried))

    def lane_ran(self, seconds: float) -> None:
        """Nothing is counted."""

    def lane_lost(self) -> None:
        self.lost += 1


class Rig:
    """Lanes, and what they did."""

    def __init__(
        self,
        lanes: Lanes,
        scheduler: Scheduler,
        fleet: Fleet,
        told: Told,
    ) -> None:
        self.lanes = lanes
        self.scheduler = scheduler
        self.fleet = fleet
        self.told = told
        self.batches = told.batches

    def submit(
        self, rows: int = 1, choices: tuple[str, ...] = ("fp32",), *, within_s: float = math.inf,
        model: str = "echo", soft: bool = False, allowed: tuple[str, ...] | None = None,
        length: int = 4,
    ) -> Ticket:  # fmt: skip
        """Queue a request whose rows hold numbers that no other request's hold.

        Args:
            choices: what may answer, each better than the next.
            allowed: those of them that it was told of; by default all.
            length: of a row.
        """
        image = np.array([[next(_numbers)] * length for _ in range(rows)], np.float32)
        demands = Constraints(
            max_latency_ms=None if within_s == math.inf else within_s * 1000,
            relax=("latency",) if soft else (),
        )
        menu = self.fleet.model(model).menu
        decision = Decision(
            model,
            "accepted",
            "accuracy",
            variant=choices[0],
            allowed=choices if allowed is None else allowed,
            choices=in_order(menu, [menu.by_name[name] for name in choices]),
        )
        request = InferRequest(model, {"image": image}, rows, demands, time.monotonic())
        return self.lanes.submit(request, demands, decision)

    async def busy(self) -> Ticket:
        """Occupy the one lane; returns the request that does."""
        ticket = self.submit(model="slow")
        while not (self.lanes.busy and not self.lanes.queued):
            await asyncio.sleep(0.001)
        return ticket


@asynccontextmanager
async def running(
    models: Path,
    *,
    count: int = 1,
    kind: str = "thread",
    batch_timeout_s: float = math.inf,
    terms: Terms | None = None,
) -> AsyncIterator[Rig]:
    fleet = Fleet.of(
        catalog.usable(models), percentile=99, usd_per_lane_hour=0.05, max_batch=MAX_BATCH
    )
    kept = [hosts.open_one(kind, lane) for lane in range(count)]
    fleet.load(kept, threads=1, max_batch=MAX_BATCH, trust=False)
    told = Told()
    scheduler = Scheduler(
        {model.name: model for model in fleet.models()},
        Telemetry(),
        policies.get("gearshift"),
        Policy(),
        lanes=count,
        max_batch=MAX_BATCH,
        breakers=Breakers(terms),
    )
    lanes = Lanes(
        fleet, scheduler, kept, told, max_batch=MAX_BATCH, batch_timeout_s=batch_timeout_s
    )
    try:
        yield Rig(lanes, scheduler, fleet, told)
    finally:
        lanes.refuse_queued()
        assert lanes.join(PATIENCE_S)
        fleet.close()
        for host in kept:
            host.close()


def run(models: Path, test: Callable[[Rig], Awaitable[None]], **how: Any) -> None:
    async def main() -> None:
        async with running(models, **how) as rig:
            await asyncio.wait_for(test(rig), PATIENCE_S)

    asyncio.run(main())


def assert_own(ticket: Ticket, result: Result) -> None:
    """The caller got the rows that are its own, all of them, in order."""
    sent = ticket.request.inputs["image"][:, :1]
    np.testing.assert_array_equal(result.outputs["logits"], np.repeat(sent, 3, axis=1))
