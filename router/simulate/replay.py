"""The replay: traffic against a policy, by events, in simulated time.

The scheduler is the gateway's own (`router.scheduler`), so a simulated decision is a real one; the
lanes alone are imitated: a batch takes a time drawn from what its card measured, times what the
machine is slowed down by at that moment.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from router.admission import admits
from router.decision import Decision
from router.dispatch import Assignment
from router.menu import Menu
from router.policies import Rule
from router.queue import Waiting
from router.route import Policy
from router.scheduler import Scheduler
from router.simulate.mix import Mix
from router.telemetry import Telemetry


class Outcome(NamedTuple):
    """What became of one request.

    Attributes:
        variant: what answered; empty when nothing did.
        latency_ms: time to the answer, or to the refusal.
        predicted_ms: what was promised at arrival; 0 when it was refused.
        kept: whether it was answered in time.
        verdict: "answered", "late", "expired", "overloaded", "unsatisfiable", "queue-full".
        lane_ms: its share of the batch's lane time.
    """

    at_s: float
    tenant: int
    variant: str
    latency_ms: float
    predicted_ms: float
    kept: bool
    verdict: str
    lane_ms: float


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose variants are all ready; `typical_ms` and so on are its menu's."""

    menu: Menu
    ready: frozenset[str]

    @property
    def runnable(self) -> frozenset[str]:
        """As `ready`: nothing is ever freed."""
        return self.ready


@dataclass(frozen=True, slots=True)
class Machine:
    """What serves.

    Attributes:
        draw_ms: time of a batch: of (model, variant, rows, chance).
        slowed: (second, factor), ascending: from that second on batches take so many times longer.
        overhead_ms: what an answer takes outside queue and inference.
        gap_ms: what a lane takes to choose and gather each batch before it runs.
    """

    lanes: int
    draw_ms: Callable[[str, str, int, Random], float]
    slowed: Sequence[tuple[float, float]] = ()
    max_batch: int = 32
    max_queue: int = 100_000
    overhead_ms: float = 0.0
    gap_ms: float = 0.0

    def took_ms(self, now_s: float, work_ms: float) -> float:
        """How long a batch takes that starts now and would take `work_ms` at full speed.

        One that is running when the machine slows down is slowed down from there on.
        """
        at = bisect_right(self.slowed, (now_s, math.inf))
        factor = self.slowed[at - 1][1] if at else 1.0
        took_ms = 0.0
        for second, following in self.slowed[at:]:
            room_ms = (second - now_s) * 1000 - took_ms
            if work_ms * factor <= room_ms:
                break
            took_ms += room_ms
            work_ms -= room_ms / factor
            factor = following
        return took_ms + work_ms * factor


def replay(
    arrivals_s: Sequence[float],
    tenants: Sequence[int],
    mix: Mix,
    models: Mapping[str, Model],
    machine: Machine,
    rule: Rule,
    policy: Policy,
    rng: Random,
) -> list[Outcome]:
    """What becomes of each request, in the order of arrival.

    Args:
        arrivals_s: when each arrives, ascending.
        tenants: by request, the index of its tenant in `mix`.
    """
    telemetry = Telemetry(overhead_start_ms=machine.overhead_ms)
    scheduler = Scheduler(
        models, telemetry, rule, policy, lanes=machine.lanes, max_batch=machine.max_batch
    )
    only = next(iter(models))
    count = len(arrivals_s)
    outcomes: list[Outcome | None] = [None] * count
    decisions: dict[int, Decision] = {}
    idle = list(range(machine.lanes))
    heapq.heapify(idle)
    running: list[tuple[float, int, Assignment, float]] = []
    wake_s = math.inf
    following = 0

    def lost(waiting: Waiting, verdict: str, now_s: float) -> None:
        decision = decisions.pop(waiting.ticket)
        age_ms = (now_s - arrivals_s[waiting.ticket]) * 1000
        if age_ms > 0:
            telemetry.answer(
                decision.queued,
                decision.estimate_ms,
                decision.predicted_latency_ms,
                age_ms,
                "dropped",
                now_s,
            )
        outcomes[waiting.ticket] = Outcome(
            arrivals_s[waiting.ticket],
            tenants[waiting.ticket],
            "",
            age_ms,
            decision.predicted_latency_ms,
            False,
            verdict,
            0.0,
        )

    while True:
        arrival_s = arrivals_s[following] if following < count else math.inf
        finish_s = running[0][0] if running else math.inf
        next_s = min(arrival_s, finish_s, wake_s)
        if next_s == math.inf:
            break
        now_s = next_s
        wake_s = math.inf
        while following < count and arrivals_s[following] <= now_s:
            tenant = mix.tenants[tenants[following]]
            model = tenant.model or only
            decision = scheduler.route(model, tenant.constraints, tenant.rows, now_s)
            verdict: str = decision.verdict
            if verdict == "accepted" and not admits(
                len(scheduler.queue.waiting), machine.max_queue, tenant.constraints.priority
            ):
                verdict = "queue-full"
            if verdict == "accepted":
                decisions[following] = decision
                scheduler.submit(
                    (
                        scheduler.waiting(
                            decision, tenant.constraints, tenant.rows, following, now_s
                        ),
                    ),
                    now_s,
                )
            else:
                outcomes[following] = Outcome(
                    now_s, tenants[following], "", 0.0, 0.0, False, verdict, 0.0
                )
            following += 1
        while running and running[0][0] <= now_s:
            ended_s, lane, assignment, took_ms = heapq.heappop(running)
            heapq.heappush(idle, lane)
            scheduler.busy_until_s[lane] = 0.0
            scheduler.finished(assignment, took_ms, ended_s)
            rows = sum([waiting.rows for waiting in assignment.members])
            for waiting in assignment.members:
                decision = decisions.pop(waiting.ticket)
                out_s = ended_s + machine.overhead_ms / 1000
                kept = out_s <= waiting.deadline_s + 1e-9
                latency_ms = (out_s - arrivals_s[waiting.ticket]) * 1000
                telemetry.answer(
                    decision.queued,
                    decision.estimate_ms,
                    decision.predicted_latency_ms,
                    latency_ms,
                    "success",
                    ended_s,
                )
                outcomes[waiting.ticket] = Outcome(
                    arrivals_s[waiting.ticket],
                    tenants[waiting.ticket],
                    assignment.variant,
                    latency_ms,
                    decision.predicted_latency_ms,
                    kept,
                    "answered" if kept else "late",
                    took_ms * waiting.rows / rows,
                )
        while idle and scheduler.queue.waiting:
            lane = idle[0]
            assignment = scheduler.take(lane, now_s)
            for waiting in assignment.expired:
                lost(waiting, "expired", now_s)
            if not assignment.members:
                if assignment.wait_until_s > now_s:
                    wake_s = assignment.wait_until_s
                    break
                if not assignment.expired:
                    break
                continue
            heapq.heappop(idle)
            rows = sum([waiting.rows for waiting in assignment.members])
            work_ms = machine.draw_ms(assignment.model, assignment.variant, rows, rng)
            start_s = now_s + machine.gap_ms / 1000
            took_ms = machine.took_ms(start_s, work_ms)
            heapq.heappush(running, (start_s + took_ms / 1000, lane, assignment, took_ms))
    return [outcome for outcome in outcomes if outcome is not None]
