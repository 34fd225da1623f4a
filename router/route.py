"""route(): filter, score, pick; and what happens when nobody qualifies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from router.constraints import NONE, Constraints, Relaxable
from router.decision import Constraint, Decision, Refusal
from router.estimate import latency_ms, wait_ms
from router.feasible import Option, broken, meets, offered_floor, refusal
from router.menu import Menu, Offer
from router.nearest import nearest
from router.policies import Rank
from router.policies.objective import rank
from router.snapshot import Snapshot, idle

# What a caller may list in `relax`, and the constraint that then gives way.
_RELAXES: dict[Relaxable, Constraint] = {
    "latency": "max_latency_ms",
    "cost": "max_cost_usd_per_million",
    "accuracy": "min_accuracy",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's part of a decision.

    Attributes:
        accuracy_margin: a variant shown not to be worse than the best by more than this counts as
            its equal under `optimize: accuracy`; a share, so 0.005 is half a point.
        default: the constraints of a request that states none.
        rank: what is best among what is allowed.
    """

    accuracy_margin: float = 0.005
    default: Constraints = NONE
    rank: Rank = rank


def route(
    constraints: Constraints, menu: Menu, snapshot: Snapshot, policy: Policy, rows: int = 1
) -> Decision:
    """The decision for one request of `rows` rows.

    Raises:
        UnknownVariant: the request pins a variant that the model does not have.
    """
    objective = constraints.optimize or policy.default.optimize or "accuracy"
    pinned = None if constraints.variant is None else menu.resolve(constraints.variant)
    wait = wait_ms(snapshot.lane_free_in_ms, snapshot.backlog_ms)
    allowed: list[Option] = []
    ready: list[Option] = []
    refused: list[Refusal] = []
    for offer in menu.offers:
        if pinned is not None and offer is not pinned:
            refused.append(Refusal(offer.name, "variant"))
            continue
        if offer.name not in snapshot.ready:
            refused.append(Refusal(offer.name, "ready"))
            continue
        option = _option(offer, rows, snapshot, wait)
        ready.append(option)
        misses = broken(option, constraints)
        if misses:
            refused.extend([refusal(option, name, constraints) for name in misses])
        else:
            allowed.append(option)

    if allowed:
        ordered, reason, why = policy.rank(allowed, objective, menu, policy.accuracy_margin)
        if pinned is not None:
            reason, why = "pinned", f"{pinned.name} is pinned by the request"
        return _accepted(menu, objective, ordered, refused, reason=reason, why=why)
    relaxed, given_way = _relax(ready, constraints)
    if relaxed:
        why = f"nothing met every constraint; nearest with {' and '.join(given_way)} relaxed"
        decision = _accepted(menu, objective, relaxed, refused, reason="relaxed", why=why)
        return replace(decision, relaxed=given_way)
    return _refuse(constraints, menu, snapshot, rows, objective, ready, refused, pinned)


def _option(offer: Offer, rows: int, snapshot: Snapshot, wait: float) -> Option:
    return Option(offer, latency_ms(offer, rows, snapshot, wait), offer.cost_usd_per_million(rows))


def _accepted(
    menu: Menu,
    objective: str,
    ordered: Sequence[Option],
    refused: list[Refusal],
    **reason: str,
) -> Decision:
    best = ordered[0]
    return Decision(
        model=menu.model,
        verdict="accepted",
        objective=objective,
        variant=best.offer.name,
        predicted_latency_ms=best.latency_ms,
        accuracy=best.offer.accuracy,
        cost_usd_per_million=best.cost_usd_per_million,
        allowed=tuple([option.offer.name for option in ordered]),
        refused=tuple(refused),
        **reason,  # type: ignore[arg-type]
    )


def _relax(
    options: Sequence[Option], constraints: Constraints
) -> tuple[list[Option], tuple[Relaxable, ...]]:
    """What fits when constraints give way in the order in which the caller listed them.

    As few give way as possible. Those that meet all the others come nearest first, judged by the
    constraint listed last, since the caller would rather see the earlier ones give way.
    """
    given_way: list[Relaxable] = []
    kept = constraints
    for name in constraints.relax:
        if getattr(constraints, _RELAXES[name]) is None:
            continue
        given_way.append(name)
        kept = replace(kept, **{_RELAXES[name]: None})  # type: ignore[arg-type]
        fitting = [option for option in options if meets(option, kept)]
        if fitting:
            fitting.sort(
                key=lambda option: (
                    *(_shortfall(option, name, constraints) for name in reversed(given_way)),
                    option.offer.name,
                )
            )
            return fitting, tuple(given_way)
    return [], ()


def _shortfall(option: Option, name: Relaxable, constraints: Constraints) -> float:
    """By how much `option` misses the constraint that `name` relaxes; 0 when it meets it."""
    if name == "latency":
        assert constraints.max_latency_ms is not None
        return max(0.0, option.latency_ms - constraints.max_latency_ms)
    if name == "cost":
        assert constraints.max_cost_usd_per_million is not None
        return max(0.0, option.cost_usd_per_million - constraints.max_cost_usd_per_million)
    assert constraints.min_accuracy is not None
    least = constraints.min_accuracy
    return max(0.0, least.value - offered_floor(option.offer, least).value)


def _refuse(
    constraints: Constraints,
    menu: Menu,
    snapshot: Snapshot,
    rows: int,
    objective: str,
    ready: Sequence[Option],
    refused: list[Refusal],
    pinned: Offer | None,
) -> Decision:
    """Never, not now, or not loaded: which of the three, and what would fit."""
    overhead_ms = min(snapshot.overhead_ms, snapshot.least_overhead_ms)
    empty = replace(idle(snapshot.ready), overhead_ms=overhead_ms)
    offers = menu.offers if pinned is None else (pinned,)
    ever = [
        option
        for option in (_option(offer, rows, empty, 0.0) for offer in offers)
        if meets(option, constraints)
    ]
    now = {option.offer.name: option for option in ready}
    late = [
        now[option.offer.name].latency_ms - (constraints.max_latency_ms or 0.0)
        for option in ever
        if option.offer.name in now
    ]
    decision = Decision(
        model=menu.model,
        verdict="unsatisfiable",
        objective=objective,
        refused=tuple(refused),
        nearest=nearest(ready, constraints),
    )
    if late:
        return replace(
            decision,
            verdict="overloaded",
            retry_after_ms=min(late),
            why=f"{menu.model} could meet these constraints, but not under the present load",
        )
    if ever or not ready:
        return replace(
            decision,
            verdict="not-ready",
            why=f"no variant of {menu.model} that could meet these constraints is ready",
        )
    would_fit = f"; would fit: {decision.nearest}" if str(decision.nearest) else ""
    return replace(
        decision, why=f"no variant of {menu.model} can meet these constraints{would_fit}"
    )
