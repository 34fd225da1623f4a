"""route(): filter, score, pick; and what happens when nobody qualifies.

What a request demands of accuracy and cost filters the variants once for all requests alike
(`router.choices`); what is left to decide now is time. The decision is a prediction: the variant
that answers is chosen when a lane comes free, by `router.dispatch`, with the slack that is left
then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from router.choices import Choices, Eligible, eligible, in_order
from router.constraints import NONE, Constraints, Objective, Relaxable
from router.decision import Constraint, Decision, Reason, Refusal
from router.estimate import latency_ms
from router.feasible import Option, meets, offered_floor, refusal
from router.menu import Menu
from router.nearest import nearest
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
    """

    accuracy_margin: float = 0.005
    default: Constraints = NONE


def route(
    constraints: Constraints, menu: Menu, snapshot: Snapshot, policy: Policy, rows: int = 1
) -> Decision:
    """The decision for one request of `rows` rows.

    Raises:
        UnknownVariant: the request pins a variant that the model does not have.
    """
    objective = constraints.optimize or policy.default.optimize or "accuracy"
    kind = eligible(constraints, objective, menu, policy.accuracy_margin, rows)
    allowed, late = _in_time(kind, constraints.max_latency_ms, snapshot, snapshot.wait_ms, rows)
    pressed = not allowed and bool(late) and snapshot.least_wait_ms < snapshot.wait_ms
    if pressed:
        # Those ahead give way as far as they must when a lane comes free, and so does this one.
        allowed, late = _in_time(
            kind, constraints.max_latency_ms, snapshot, snapshot.least_wait_ms, rows
        )
    if not allowed:
        return _without(constraints, menu, snapshot, policy, rows, objective, kind)
    refused = kind.refused
    if late or len(allowed) < len(kind.choices.offers):
        refused += _too_late(kind, late, constraints, snapshot.ready)
    if pressed:
        best = min(allowed, key=lambda option: option.latency_ms)
        reason: Reason = "under-load"
        why = f"the fastest of {len(allowed)} that the load leaves time for"
    else:
        best, reason, why = _pick(allowed, objective, kind, snapshot, rows)
    if constraints.variant is not None:
        reason, why = "pinned", f"{best.offer.name} is pinned by the request"
    ordered = (best.offer.name, *[o.offer.name for o in allowed if o is not best])
    return _accepted(
        menu, constraints, objective, best, ordered, refused, snapshot, kind.choices, reason, why
    )


def _in_time(
    kind: Eligible, limit_ms: float | None, snapshot: Snapshot, wait: float, rows: int
) -> tuple[list[Option], list[Option]]:
    """The options that make the deadline, in the order of the choices; and those that do not."""
    allowed: list[Option] = []
    late: list[Option] = []
    ready = snapshot.ready
    caution_ms = wait * snapshot.caution
    for offer, quote in zip(kind.choices.offers, kind.quotes, strict=True):
        if offer.name in ready:
            ms = latency_ms(offer, rows, snapshot, wait, limit_ms)
            if limit_ms is None or ms + caution_ms <= limit_ms:
                allowed.append(Option(offer, ms, quote))
            else:
                late.append(Option(offer, ms + caution_ms, quote))
    return allowed, late


def _too_late(
    kind: Eligible, late: Sequence[Option], constraints: Constraints, ready: frozenset[str]
) -> tuple[Refusal, ...]:
    """Why the choices that are not ready, and those that are `late`, are refused now."""
    unready = [Refusal(o.name, "ready") for o in kind.choices.offers if o.name not in ready]
    return (*unready, *[refusal(option, "max_latency_ms", constraints) for option in late])


def _pick(
    allowed: Sequence[Option], objective: Objective, kind: Eligible, snapshot: Snapshot, rows: int
) -> tuple[Option, Reason, str]:
    """The best of `allowed` at the present price of lane time, with a word and a sentence."""
    count = len(allowed)
    best = allowed[0]
    if objective == "cost":
        return best, "cheapest", f"cheapest of {count} allowed"
    if objective == "latency":
        best = min(allowed, key=lambda o: (o.latency_ms, -o.offer.accuracy, o.cost_usd_per_million))
        return best, "fastest", f"fastest of {count} allowed"
    if snapshot.price > 0:
        worth = dict(zip(kind.choices.offers, kind.choices.worth, strict=True))
        price = snapshot.price * rows
        slowdown = snapshot.slowdown
        dear = best
        best = max(
            allowed,
            key=lambda o: worth[o.offer] - price * o.offer.row_ms * slowdown.get(o.offer.name, 1.0),
        )
        if best is not dear:
            return best, "under-load", f"the best of {count} allowed that the load leaves time for"
    top = max(allowed, key=lambda o: o.offer.accuracy)
    if best.offer.accuracy == top.offer.accuracy:
        return best, "most-accurate", f"most accurate of {count} allowed"
    return (
        best,
        "cheapest-equal",
        f"cheapest of those shown to be as accurate as {top.offer.name}, within the margin",
    )


def _accepted(
    menu: Menu,
    constraints: Constraints,
    objective: str,
    best: Option,
    ordered: tuple[str, ...],
    refused: tuple[Refusal, ...],
    snapshot: Snapshot,
    choices: Choices,
    reason: Reason,
    why: str,
    relaxed: tuple[Relaxable, ...] = (),
) -> Decision:
    # It is not run when it would be late, so it is not answered later than that.
    promised_ms, estimate_ms = best.latency_ms * snapshot.margin, best.latency_ms
    limit_ms = constraints.max_latency_ms
    if limit_ms is not None and "latency" not in relaxed:
        promised_ms = min(promised_ms, limit_ms)
        if choices.thrifty and snapshot.company:
            # It may be held for company as long as its deadline allows.
            promised_ms, estimate_ms = limit_ms, 0.0
    return Decision(
        model=menu.model,
        verdict="accepted",
        objective=objective,
        variant=best.offer.name,
        reason=reason,
        why=why,
        predicted_latency_ms=promised_ms,
        estimate_ms=estimate_ms,
        queued=snapshot.wait_ms > 0,
        accuracy=best.offer.accuracy,
        cost_usd_per_million=best.cost_usd_per_million,
        allowed=ordered,
        refused=refused,
        relaxed=relaxed,
        choices=choices,
    )


def _without(
    constraints: Constraints,
    menu: Menu,
    snapshot: Snapshot,
    policy: Policy,
    rows: int,
    objective: Objective,
    kind: Eligible,
) -> Decision:
    """What to do when nothing meets every constraint now: relax what may be, or refuse."""
    offers = menu.offers
    if constraints.variant is not None:
        offers = (menu.resolve(constraints.variant),)
    elif menu.withheld:
        offers = tuple([offer for offer in offers if offer.name not in menu.withheld])
    wait, limit_ms = snapshot.least_wait_ms, constraints.max_latency_ms
    options = [
        Option(
            offer,
            latency_ms(offer, rows, snapshot, wait, limit_ms) + wait * snapshot.caution,
            offer.cost_usd_per_million(rows),
        )
        for offer in offers
        if offer.name in snapshot.ready
    ]
    late = [option for option in options if option.offer in kind.choices.offers]
    refused = (*kind.refused, *_too_late(kind, late, constraints, snapshot.ready))
    fitting, given_way = _relax(options, constraints)
    if fitting:
        why = f"nothing met every constraint; nearest with {' and '.join(given_way)} relaxed"
        return _accepted(
            menu,
            constraints,
            objective,
            fitting[0],
            tuple([option.offer.name for option in fitting]),
            refused,
            snapshot,
            # Latency gave way already, and not for another constraint to follow.
            in_order(menu, [o.offer for o in fitting[: 1 if "latency" in given_way else None]]),
            "relaxed",
            why,
            given_way,
        )
    return _refuse(constraints, menu, snapshot, policy, rows, objective, options, refused)


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
    policy: Policy,
    rows: int,
    objective: Objective,
    options: Sequence[Option],
    refused: tuple[Refusal, ...],
) -> Decision:
    """Never, not now, or not loaded: which of the three, and what would fit."""
    overhead_ms = min(snapshot.overhead_ms, snapshot.least_overhead_ms)
    empty = idle(snapshot.ready)._replace(overhead_ms=overhead_ms)
    kind = eligible(constraints, objective, menu, policy.accuracy_margin, rows)
    limit_ms = constraints.max_latency_ms
    ever = {
        offer
        for offer in kind.choices.offers
        if limit_ms is None or latency_ms(offer, rows, empty, 0.0) <= limit_ms
    }
    over_ms = [o.latency_ms - (limit_ms or 0.0) for o in options if o.offer in ever]
    decision = Decision(
        model=menu.model,
        verdict="unsatisfiable",
        objective=objective,
        refused=refused,
        nearest=nearest(options, constraints),
    )
    if over_ms:
        return decision._replace(
            verdict="overloaded",
            retry_after_ms=min(over_ms),
            why=f"{menu.model} could meet these constraints, but not under the present load",
        )
    if ever or not options:
        return decision._replace(
            verdict="not-ready",
            why=f"no variant of {menu.model} that could meet these constraints is ready",
        )
    would_fit = f"; would fit: {decision.nearest}" if str(decision.nearest) else ""
    return decision._replace(
        why=f"no variant of {menu.model} can meet these constraints{would_fit}"
    )
