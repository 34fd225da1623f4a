"""A trial: one policy against one draw of a workload; everything in it follows from its arguments.

Load is a multiple of what the machine can do with the variant in the middle: variants sorted from
the most accurate on, the one at index (n − 1) // 2, in batches of the best size. At load 1 that
variant alone would just keep up; below, more accuracy can be had, above, some must be given. With
several models or sizes of request it is the mean over the mix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from router import policies
from router.choices import eligible
from router.constraints import Constraints, or_default
from router.menu import Menu, Offer
from router.route import Policy, route
from router.simulate import arrivals
from router.simulate.bound import Bound, Class, bound
from router.simulate.mix import Mix, Tenant, assign
from router.simulate.replay import Machine, Model, Outcome, replay
from router.simulate.service import Service, drawer
from router.simulate.trace import BadTrace, Trace, window
from router.snapshot import idle


@dataclass(frozen=True, slots=True)
class Workload:
    """What is replayed, apart from load, lanes and chance.

    Attributes:
        arriving: a recorded trace, or the spec of a process.
        requests: how many to replay; of recorded counts, about as many.
        menus, services: by model; by (model, variant).
        slow_from_half: from half of the time on, batches take so many times longer.
    """

    arriving: Trace | str
    requests: int
    mix: Mix
    menus: Mapping[str, Menu]
    services: Mapping[tuple[str, str], Service]
    policy: Policy
    max_batch: int = 32
    max_queue: int = 100_000
    slow_from_half: float = 1.0

    def model_of(self, tenant: Tenant) -> str:
        """Whose requests `tenant` sends: the only model where it names none."""
        return tenant.model or next(iter(self.menus))


class Case(NamedTuple):
    """One draw of a workload: the same arrivals and tenants for every policy."""

    rate_per_s: float
    lanes: int
    seed: int


def middle(menu: Menu) -> Offer:
    """The variant by which load is counted: the third of six."""
    return menu.offers[(len(menu.offers) - 1) // 2]


def capacity_per_s(workload: Workload, lanes: int) -> float:
    """Requests per s that `lanes` lanes answer at most by each model's middle variant: load 1."""
    ms = 0.0
    for tenant in workload.mix.tenants:
        times = middle(workload.menus[workload.model_of(tenant)]).typical_ms
        row_ms = min(times[rows] / rows for rows in range(1, len(times)))
        ms += tenant.share * tenant.rows * row_ms
    return lanes * 1000 / ms


def traffic(workload: Workload, case: Case) -> tuple[list[float], list[int]]:
    """Arrivals in s, and by request the index of its tenant.

    Raises:
        BadTrace: nothing can be drawn at that rate.
    """
    rng = Random(f"traffic {case.seed}")
    arriving = workload.arriving
    if isinstance(arriving, str):
        found = arrivals.arrivals(
            arriving, rate_per_s=case.rate_per_s, requests=workload.requests, rng=rng
        )
    else:
        found = window.arrivals(
            arriving, rate_per_s=case.rate_per_s, requests=workload.requests, rng=rng
        )
    if not found:
        raise BadTrace(
            f"{name_of(arriving)}: requests: expected enough for one to arrive, "
            f"got {workload.requests} at {case.rate_per_s:.4g} a second"
        )
    return found, assign(workload.mix, len(found), rng)


def name_of(arriving: Trace | str) -> str:
    """What messages and files call it."""
    return arriving if isinstance(arriving, str) else arriving.name


def run(
    workload: Workload,
    case: Case,
    policy: str,
    loaded: frozenset[tuple[str, str]] | None = None,
) -> list[Outcome]:
    """What becomes of each request under the policy of that name.

    Args:
        loaded: the variants that are loaded, as (model, variant); None for all.

    Raises:
        BadTrace: as `traffic`.
        ValueError: there is no such policy.
    """
    arrivals_s, tenants = traffic(workload, case)
    machine = Machine(
        case.lanes,
        drawer(workload.services),
        slowed=_slowed(workload, arrivals_s),
        max_batch=workload.max_batch,
        max_queue=workload.max_queue,
    )
    models = {
        name: Model(
            menu,
            frozenset([one for one in menu.by_name if loaded is None or (name, one) in loaded]),
        )
        for name, menu in workload.menus.items()
    }
    return replay(
        arrivals_s,
        tenants,
        workload.mix,
        models,
        machine,
        policies.get(policy),
        workload.policy,
        Random(f"service {case.seed}"),
    )


def limit(workload: Workload, case: Case) -> Bound:
    """What no policy could have exceeded on the same draw.

    Raises:
        BadTrace: as `traffic`.
    """
    arrivals_s, tenants = traffic(workload, case)
    speed = [(min(0.0, arrivals_s[0]), 1.0)]
    for second, factor in _slowed(workload, arrivals_s):
        if second <= speed[0][0]:
            speed.clear()
        speed.append((second, 1.0 / factor))
    classes = [_class(workload, tenant) for tenant in workload.mix.tenants]
    return bound(arrivals_s, tenants, classes, lanes=case.lanes, speed=speed)


def unmet(workload: Workload) -> Mapping[str, str]:
    """By tenant, why no variant can ever meet what it demands; with the values that would fit.

    Raises:
        UnknownVariant: a tenant pins a variant that its model does not have.
    """
    found = {}
    for tenant in workload.mix.tenants:
        menu = workload.menus[workload.model_of(tenant)]
        demanded = or_default(tenant.constraints, workload.policy.default)
        decision = route(
            demanded, menu, idle(frozenset(menu.by_name)), workload.policy, tenant.rows
        )
        if decision.verdict != "accepted":
            found[tenant.name] = decision.why
    return found


def allowed(workload: Workload, tenant: Tenant) -> list[Offer]:
    """The variants that may ever answer `tenant`: those in time, and meeting what may not give way.

    Raises:
        UnknownVariant: it pins a variant that its model does not have.
    """
    demanded = or_default(tenant.constraints, workload.policy.default)
    timeless = Constraints(
        min_accuracy=None if "accuracy" in demanded.relax else demanded.min_accuracy,
        max_cost_usd_per_million=(
            None if "cost" in demanded.relax else demanded.max_cost_usd_per_million
        ),
        variant=demanded.variant,
    )
    model = workload.model_of(tenant)
    kind = eligible(timeless, "accuracy", workload.menus[model], 0.0, tenant.rows)
    limit_ms = math.inf if demanded.max_latency_ms is None else demanded.max_latency_ms
    return [
        offer
        for offer in kind.choices.offers
        if workload.services[model, offer.name].shortest_ms(tenant.rows) <= limit_ms
    ]


def _class(workload: Workload, tenant: Tenant) -> Class:
    model = workload.model_of(tenant)
    offers = allowed(workload, tenant)
    demanded = or_default(tenant.constraints, workload.policy.default)
    return Class(
        math.inf if demanded.max_latency_ms is None else demanded.max_latency_ms,
        tuple(offer.accuracy for offer in offers),
        tuple(workload.services[model, offer.name].work_ms() * tenant.rows for offer in offers),
    )


def _slowed(workload: Workload, arrivals_s: list[float]) -> tuple[tuple[float, float], ...]:
    if workload.slow_from_half == 1.0:
        return ()
    return (((arrivals_s[0] + arrivals_s[-1]) / 2, workload.slow_from_half),)
