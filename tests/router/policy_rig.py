"""Six variants of one model, and what policies are asked about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from router import policies
from router.choices import Choices, in_order
from router.constraints import Constraints
from router.dispatch import Moment
from router.menu import Menu, Offer
from router.pace import Pace
from router.policies import Scene
from router.queue import Waiting
from router.route import Policy
from router.simulate import arrivals, mix
from router.simulate.mix import Mix
from router.simulate.replay import Machine, Model, Outcome, replay

MAX_BATCH = 32
LANES = 2
# Name, accuracy, ms of a row; a batch of n rows takes 0.1 ms and n times that.
VARIANTS = (
    ("fp32", 0.935, 2.05),
    ("bf16", 0.9348, 1.05),
    ("int8", 0.933, 0.57),
    ("pruned", 0.928, 0.33),
    ("distilled", 0.915, 0.13),
    ("tiny", 0.88, 0.05),
)
ACCURACY = {name: accuracy for name, accuracy, _ in VARIANTS}


def table(tail: float = 1.0) -> Menu:
    offers = []
    for name, accuracy, row_ms in VARIANTS:
        typical = (0.0, *(0.1 + row_ms * rows for rows in range(1, MAX_BATCH + 1)))
        promised = tuple(ms * tail for ms in typical)
        share = accuracy / VARIANTS[0][1]
        offers.append(
            Offer(name, accuracy, accuracy, accuracy, share, promised, typical, 0.05 / 3.6)
        )
    return Menu("m", "fp32", tuple(offers), {}, {offer.name: offer for offer in offers})


MENU = table(tail=1.2)
EXACT = table()
NAMES = [name for name, *_ in VARIANTS]
ALL = frozenset(NAMES)
NOW_S = 100.0
POLICIES = [f"{name}int8" if name.endswith(":") else name for name in policies.names()]
DUE = Constraints(max_latency_ms=30.0)


def choices_of(*names: str, menu: Menu = MENU) -> Choices:
    return in_order(menu, [offer for offer in menu.offers if offer.name in (names or ALL)])


def waiting(
    ticket: int,
    slack_ms: float = 30.0,
    routed: str = "int8",
    choices: Choices | None = None,
    rows: int = 1,
    soft: bool = False,
) -> Waiting:
    deadline_s = NOW_S + slack_ms / 1000
    return Waiting(
        min(deadline_s, NOW_S + 1.0),
        ticket,
        rows,
        deadline_s,
        choices or choices_of(),
        routed,
        soft=soft,
    )


def moment(
    *free_in_ms: float, now_s: float = NOW_S, ready: frozenset[str] = ALL, menu: Menu = MENU
) -> Moment:
    return Moment(
        now_s, free_in_ms or (0.0,) * LANES, {"m": Pace(menu, {}, ready)}, max_batch=MAX_BATCH
    )


def scene(
    ticket: int = 0,
    rate_per_s: float = 0.0,
    queued_rows: Mapping[str, int] | None = None,
    within_ms: float = 30.0,
    rows: int = 1,
    lane_free_in_ms: tuple[float, ...] = (0.0,) * LANES,
    pace: Pace | None = None,
) -> Scene:
    return Scene(
        ticket,
        rows,
        within_ms,
        lane_free_in_ms,
        pace or Pace(MENU, {}, ALL),
        rate_per_s,
        queued_rows or {},
        MAX_BATCH,
    )


def assigned(name: str, choices: Choices | None = None, **given: object) -> str | None:
    rule = policies.get(name)
    offer = rule.assign(choices or choices_of(), scene(**given))  # type: ignore[arg-type]
    return None if offer is None else offer.name


def tickets(members: Sequence[Waiting]) -> list[int]:
    return [member.ticket for member in members]


def simulated(
    name: str,
    arrivals_s: Sequence[float],
    tenants: Mix,
    menu: Menu = EXACT,
    lanes: int = LANES,
) -> tuple[list[Outcome], list[int]]:
    rng = Random(7)
    kinds = mix.assign(tenants, len(arrivals_s), rng)

    def draw_ms(_model: str, variant: str, rows: int, _rng: Random) -> float:
        return Pace(menu, {}, ALL).typical_ms(menu.by_name[variant], rows)

    outcomes = replay(
        arrivals_s,
        kinds,
        tenants,
        {"m": Model(menu, ALL)},
        Machine(lanes, draw_ms, max_batch=MAX_BATCH),
        policies.get(name),
        Policy(accuracy_margin=0.0),
        rng,
    )
    return outcomes, kinds


def came(spec: str, load: float, requests: int) -> list[float]:
    """`load` is that of the lanes if int8 answered everything."""
    rate = load * LANES / 0.57 * 1000
    return arrivals.arrivals(spec, rate_per_s=rate, requests=requests, rng=Random(3))


def answered_by(name: str, spec: str = "poisson", load: float = 0.1) -> Counter[str]:
    outcomes, _ = simulated(name, came(spec, load, 1000), mix.single(DUE))
    return Counter(outcome.variant for outcome in outcomes if outcome.kept)
