"""The scheduler: queue, lanes and what was learnt, behind four verbs: route, submit, take, finish.

It joins the router's functions for whoever has a clock and lanes: the gateway, whose lanes are
threads, and the simulator, whose lanes are numbers. Both run these very lines, which is why a
simulation speaks for the gateway. It knows no clock; time is an argument and never falls.

Not thread-safe: its owner holds a lock around each call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from router.arrival import Arrivals, assigned
from router.available import Available, Served
from router.breaker import Breakers, Outcome
from router.constraints import Constraints, or_default
from router.decision import Decision
from router.dispatch import COMPANY, Assignment, Moment
from router.estimate import wait_ms
from router.menu import batch_ms
from router.outlook import Outlook
from router.pace import Pace
from router.paces import Paces
from router.plan import NOTHING_PLANNED, Plan, plan, shares
from router.policies import Rule, Scene
from router.queue import PATIENCE_S, Queue, Waiting
from router.route import Policy, route
from router.snapshot import Snapshot, idle
from router.telemetry import Telemetry
from router.usage import Usage

# A request that was late when it was queued still tells what is likely to come.
_SHORTEST_MS = 0.1
# A lane whose batch takes longer than promised is still not free.
_OVERDUE_MS = 0.05
# What keeps requests out is doubted after so long in which nobody could refute it.
_DOUBTED_AFTER_S = 0.5


class Scheduler:
    """Decides for every model that shares the lanes.

    Args:
        models: what is served, by name.
        weights: of lane time, how much each model gets when there is not enough for all; 1 for
            those that are absent.
        breakers: of the variants; by default closed ones, on the default terms.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        telemetry: Telemetry,
        rule: Rule,
        policy: Policy,
        *,
        lanes: int,
        max_batch: int,
        weights: Mapping[str, float] | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        self.telemetry = telemetry
        self.breakers = Breakers() if breakers is None else breakers
        self.queue = Queue()
        self.busy_until_s = [0.0] * lanes
        self._available = Available(models, self.breakers)
        self._paces = Paces(self._available, telemetry)
        self._usage = Usage()
        self._arrivals = Arrivals()  # counted for rules that assign at arrival alone
        self._rule = rule
        self._policy = policy
        self._max_batch = max_batch
        self._weights = weights or {}
        self._shares = shares(models, self._weights)
        self._outlook = Outlook(NOTHING_PLANNED, -math.inf, self._shares)

    def serve(self, models: Mapping[str, Served]) -> None:
        """Serve these from now on: models have come or gone, or their menus have changed.

        What waits for a model that has gone expires.
        """
        for name in self._available.models.keys() - models.keys():
            for learnt in (self._paces, self._usage, self._arrivals):
                learnt.forget(name)
        self._available.models = models
        self._shares = shares(models, self._weights)
        self.queue.forget({model.menu for model in models.values()})
        self._outlook = Outlook(NOTHING_PLANNED, -math.inf, self._shares)

    def govern(self, policy: Policy, weights: Mapping[str, float]) -> None:
        """Decide by the operator's `policy` and `weights` from now on."""
        self._policy = policy
        self._weights = weights
        self._shares = shares(self._available.models, weights)

    def replaced(self, model: str, variant: str) -> None:
        """Another build of `variant` serves now: what was learnt of the one before says nothing."""
        self.telemetry.forget(model, variant)
        self.breakers.forget(model, variant)

    def route(self, model: str, constraints: Constraints, rows: int, now_s: float) -> Decision:
        """The decision for a request that arrives now.

        Raises:
            UnknownVariant: the request pins a variant that the model does not have.
            KeyError: there is no such model.
        """
        constraints = or_default(constraints, self._policy.default)
        if self._rule.admits_all:
            overhead_ms = self.telemetry.overhead_ms(now_s)
            overhead_ms = min(overhead_ms, self.telemetry.least_overhead_ms)
            snapshot = idle(self._available.ready(model, now_s))._replace(overhead_ms=overhead_ms)
        else:
            snapshot = self.snapshot(model, constraints, now_s)
        decision = route(
            constraints, self._available.models[model].menu, snapshot, self._policy, rows
        )
        if decision.verdict == "overloaded" and self._doubtful(now_s):
            self.telemetry.start_anew(now_s)
            snapshot = self.snapshot(model, constraints, now_s)
            decision = route(
                constraints, self._available.models[model].menu, snapshot, self._policy, rows
            )
        if self._rule.late or decision.choices is None:
            return decision
        return self._assigned(decision, constraints, rows, now_s)

    def snapshot(self, model: str, constraints: Constraints, now_s: float) -> Snapshot:
        """What is true now for such a request of `model`."""
        pace = self._paces.of(model, now_s)
        telemetry = self.telemetry
        free = self._lane_free_in_ms(now_s)
        wait = least = min(free)
        price = 0.0
        crowded = False
        if self.queue.waiting:
            outlook = self._current(now_s)
            crowded = outlook.crowded
            price = outlook.prices.get(model, 0.0)
            due_s = now_s + min(PATIENCE_S, (constraints.max_latency_ms or math.inf) / 1000)
            planned_ms, least_ms = outlook.ahead(due_s, model, constraints.priority)
            wait = wait_ms(free, planned_ms)
            least = min(wait, wait_ms(free, least_ms))
        return Snapshot(
            wait_ms=wait,
            least_wait_ms=least,
            price=price,
            waiting=len(self.queue.waiting),
            crowded=crowded,
            company=constraints.optimize == "cost" and self._company(constraints, now_s),
            slowdown=pace.slowdown,
            tail=pace.tail,
            margin=telemetry.margin(wait > 0, now_s),
            caution=telemetry.caution(now_s),
            overhead_ms=telemetry.overhead_ms(now_s),
            least_overhead_ms=telemetry.least_overhead_ms,
            ready=self._available.ready(model, now_s),
        )

    def _doubtful(self, now_s: float) -> bool:
        """Whether only what was learnt under a load that is over keeps a request out.

        Nothing runs and nothing waits, so nobody would ever teach better.
        """
        idle_lanes = not self.queue.waiting and not any(self.busy_until_s)
        return idle_lanes and now_s - self.telemetry.learnt_s > _DOUBTED_AFTER_S

    def _company(self, constraints: Constraints, now_s: float) -> bool:
        """Whether a request that optimises cost may be held: somebody is likely to come."""
        within_ms = constraints.max_latency_ms
        if within_ms is None:
            return False
        coming = sum([kind.rows_per_ms for kind in self.queue.expected(now_s)])
        return within_ms * coming >= COMPANY

    def waiting(
        self,
        decision: Decision,
        constraints: Constraints,
        rows: int,
        ticket: int,
        received_s: float,
    ) -> Waiting:
        """The place in the queue of a request that was accepted."""
        choices = decision.choices
        assert choices is not None
        deadline_s = math.inf
        if constraints.max_latency_ms is not None:
            deadline_s = received_s + constraints.max_latency_ms / 1000
        return Waiting(
            due_s=min(deadline_s, received_s + PATIENCE_S),
            ticket=ticket,
            rows=rows,
            deadline_s=deadline_s,
            choices=choices,
            routed=decision.variant,
            priority=constraints.priority,
            soft="latency" in constraints.relax,
        )

    def submit(self, arrivals: Iterable[Waiting], now_s: float) -> None:
        """Queue requests that arrived."""
        for waiting in arrivals:
            self.queue.add(waiting)
            if not self._rule.late:
                self._arrivals.queued(waiting)
            due_s = waiting.due_s
            patient = waiting.deadline_s > due_s
            within_ms = PATIENCE_S * 1000 if patient else (due_s - now_s) * 1000
            within_ms = max(_SHORTEST_MS, within_ms)
            self.queue.arrived(waiting.choices, within_ms, waiting.rows, now_s)
            self._outlook.came(waiting, self._paces.of(waiting.choices.model, now_s))

    def requeue(self, waiting: Waiting, now_s: float) -> None:
        """Queue a request again whose batch failed. It is no arrival: no more come than did."""
        self.queue.add(waiting)
        if not self._rule.late:
            self._arrivals.queued(waiting)
        self._outlook.came(waiting, self._paces.of(waiting.choices.model, now_s))

    def withdraw(self, waiting: Waiting) -> None:
        """Take a request out of the queue: its caller left, or its deadline passed."""
        before = len(self.queue.waiting)
        self.queue.remove((waiting,))
        if not self._rule.late and len(self.queue.waiting) < before:
            self._arrivals.left(waiting)

    def take(self, lane: int, now_s: float) -> Assignment:
        """The batch for `lane`, which is free; it and what expired leave the queue."""
        self.busy_until_s[lane] = 0.0
        queue = self.queue
        waiting: Sequence[Waiting] = queue.waiting
        if self.breakers:
            waiting = self._available.not_held(waiting, now_s)
        if not waiting:
            return Assignment()
        moment = Moment(
            now_s=now_s,
            lane_free_in_ms=tuple(self._lane_free_in_ms(now_s)),
            paces=self._paces.all(now_s),
            expected=queue.expected(now_s),
            max_batch=self._max_batch,
            overhead_ms=self.telemetry.overhead_ms(now_s),
            weights=self._weights,
            price=self._outlook.price,
            used_ms=self._usage.lately_ms,
            caution=self.telemetry.caution(now_s),
        )
        assignment = self._rule.dispatch(waiting, moment)
        queue.remove(assignment.members)
        queue.remove(assignment.expired)
        if not self._rule.late:
            for leaving in (*assignment.members, *assignment.expired):
                self._arrivals.left(leaving)
        if assignment.members:
            self.busy_until_s[lane] = now_s + assignment.promised_ms / 1000
            if len(self._available.models) > 1:
                weight = self._weights.get(assignment.model, 1.0)
                self._usage.add(assignment.model, assignment.promised_ms / weight, now_s)
            if self.breakers:
                self.breakers.taken(assignment.model, assignment.variant, now_s)
        if assignment.plan is not None:
            self._keep(assignment.plan, now_s)
            for leaving in (*assignment.members, *assignment.expired):
                self._outlook.went(leaving, moment.paces[leaving.choices.model])
        return assignment

    def finished(self, assignment: Assignment, actual_ms: float, now_s: float) -> None:
        """A batch that was taken has succeeded, in `actual_ms`."""
        rows = sum([waiting.rows for waiting in assignment.members])
        offer = assignment.offer
        if assignment.model not in self._available.models:
            return
        self.telemetry.batch(
            assignment.model,
            assignment.variant,
            batch_ms(offer.typical_ms, rows),
            batch_ms(offer.promised_ms, rows),
            actual_ms,
            now_s,
        )

    def ended(self, model: str, variant: str, outcome: Outcome, now_s: float) -> bool:
        """What a batch that was taken says of its variant; whether its breaker opened."""
        if outcome == "success" and not self.breakers:
            return False
        return self.breakers.ended(model, variant, outcome, now_s)

    def _assigned(
        self, decision: Decision, constraints: Constraints, rows: int, now_s: float
    ) -> Decision:
        """The decision with the variant that the rule assigns; refused where it assigns none."""
        model, limit_ms = decision.model, constraints.max_latency_ms
        pace = self._paces.of(model, now_s)
        ready = self._available.ready(model, now_s)
        if pace.ready != ready:
            pace = Pace(pace.menu, pace.slowdown, ready, pace.tail)
        scene = Scene(
            ticket=self._arrivals.ticket(),
            rows=rows,
            within_ms=math.inf if limit_ms is None else limit_ms,
            lane_free_in_ms=tuple(self._lane_free_in_ms(now_s)),
            pace=pace,
            rate_per_s=self._arrivals.rate_per_s(model, self.queue.expected(now_s), now_s),
            queued_rows=self._arrivals.queued_rows(model),
            max_batch=self._max_batch,
            overhead_ms=self.telemetry.overhead_ms(now_s),
        )
        return assigned(decision, self._rule, scene)

    def _lane_free_in_ms(self, now_s: float) -> list[float]:
        return [
            max(_OVERDUE_MS, (until - now_s) * 1000) if until > 0 else 0.0
            for until in self.busy_until_s
        ]

    def _current(self, now_s: float) -> Outlook:
        """The outlook, made anew when it is out of date."""
        if self._outlook.is_stale(now_s):
            self._keep(
                plan(
                    self.queue.waiting,
                    self.queue.expected(now_s),
                    now_s,
                    self._lane_free_in_ms(now_s),
                    self._paces.all(now_s),
                    self.telemetry.overhead_ms(now_s),
                    self._weights,
                    self._outlook.price,
                    self.telemetry.caution(now_s),
                ),
                now_s,
            )
        return self._outlook

    def _keep(self, new: Plan, now_s: float) -> None:
        self._outlook = Outlook(new, now_s, self._shares)
