"""Every policy keeps the contract; each of those published does what it is known for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from router import policies
from router.batching import batch
from router.chance import chance
from router.choices import Choices, eligible, in_order
from router.constraints import Constraints, Floor
from router.dispatch import Assignment, Moment
from router.menu import Menu, Offer
from router.pace import Pace
from router.policies import Rule, Scene, least_latency, model_switching, proteus, slackfit
from router.queue import Waiting
from router.route import Policy
from router.scheduler import Scheduler
from router.simulate import arrivals, mix
from router.simulate.bound import Class, bound
from router.simulate.mix import Mix
from router.simulate.replay import Machine, Model, Outcome, replay
from router.telemetry import Telemetry

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

every = pytest.mark.parametrize("name", POLICIES)


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


# The contract.


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    queue = []
    for ticket in range(draw(st.integers(1, 60))):
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
        slack_ms = draw(st.floats(-5.0, 60.0) | st.just(math.inf))
        rows = draw(st.sampled_from([1, 1, 1, 2, 7, MAX_BATCH + 5]))
        routed = draw(st.sampled_from(sorted(names)))
        soft = draw(st.sampled_from([False, False, False, True]))
        queue.append(waiting(ticket, slack_ms, routed, choices_of(*names), rows, soft))
    return sorted(queue)


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    ready = frozenset(draw(st.sets(st.sampled_from(NAMES), min_size=3)))
    busy = draw(st.lists(st.sampled_from([0.0, 0.0, 4.0]), max_size=3))
    return moment(0.0, *busy, ready=ready)


@every
@settings(max_examples=60)
@given(queue=queues(), at=moments())
def test_a_batch_keeps_the_contract(name: str, queue: list[Waiting], at: Moment) -> None:
    rule = policies.get(name)
    made = rule.dispatch(queue, at)
    assert policies.get(name).dispatch(list(queue), at) == made

    gone = [*made.members, *made.expired]
    assert len({member.ticket for member in gone}) == len(gone)
    assert all(member in queue for member in gone)
    assert bool(made.members) == bool(made.variant) == (made.promised_ms > 0)
    for member in made.members:
        assert made.variant in [offer.name for offer in member.choices.offers]
        assert made.variant in at.paces["m"].ready
        assert rule.late or member.routed == made.variant
    rows = sum(member.rows for member in made.members)
    assert rows <= MAX_BATCH or len(made.members) == 1
    for dropped in made.expired:
        allowed = [o.name for o in dropped.choices.offers] if rule.late else [dropped.routed]
        assert not any(in_time(dropped, variant, at) for variant in allowed)
    # It runs, drops, or waits, and then no longer than somebody can.
    if not gone:
        assert NOW_S < made.wait_until_s <= min(member.due_s for member in queue)


def in_time(member: Waiting, variant: str, at: Moment) -> bool:
    pace = at.paces["m"]
    if variant not in pace.ready:
        return False
    ms = pace.typical_ms(MENU.by_name[variant], member.rows)
    return member.soft or ms <= (member.deadline_s - at.now_s) * 1000


@every
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True),
    ready=st.sets(st.sampled_from(NAMES)),
    ticket=st.integers(0, 10_000),
    rate_per_s=st.floats(0.0, 1e5),
    queued_rows=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 500)),
    within_ms=st.floats(0.1, 500.0) | st.just(math.inf),
    rows=st.sampled_from([1, 3, MAX_BATCH + 5]),
)
def test_what_is_assigned_is_a_choice_that_is_ready(
    name: str,
    names: list[str],
    ready: set[str],
    ticket: int,
    rate_per_s: float,
    queued_rows: dict[str, int],
    within_ms: float,
    rows: int,
) -> None:
    choices = choices_of(*names)
    at = scene(
        ticket,
        rate_per_s,
        queued_rows,
        within_ms,
        rows,
        pace=Pace(MENU, {}, frozenset(ready)),
    )
    rule = policies.get(name)
    offer = rule.assign(choices, at)
    assert policies.get(name).assign(choices, at) is offer
    if rule.late:
        return
    if offer is not None:
        assert offer in choices.offers and offer.name in ready
    elif name not in ("static:int8", "proteus"):
        assert not ready & set(names)


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


MIXED = mix.parse(
    """
    [[tenant]]
    share = 1
    name = "plain"
    max_latency_ms = 30
    [[tenant]]
    share = 1
    name = "floor"
    max_latency_ms = 20
    min_accuracy = 0.92
    rows = 3
    [[tenant]]
    share = 1
    name = "patient"
    [[tenant]]
    share = 1
    name = "soft"
    max_latency_ms = 5
    relax = "latency"
    [[tenant]]
    share = 1
    name = "impossible"
    min_accuracy = 0.99
    """,
    "mixed",
)


@every
@pytest.mark.parametrize("load", [0.2, 3.0])
def test_every_request_leaves_and_no_constraint_is_broken(name: str, load: float) -> None:
    outcomes, kinds = simulated(name, came("gamma:cv=4", load, 1500), MIXED)
    assert len(outcomes) == 1500
    for outcome, kind in zip(outcomes, kinds, strict=True):
        tenant = MIXED.tenants[kind]
        assert outcome.tenant == kind
        if tenant.name == "impossible":
            assert outcome.verdict == "unsatisfiable"
            continue
        assert outcome.verdict != "unsatisfiable"
        if outcome.variant:
            floor = tenant.constraints.min_accuracy
            assert floor is None or ACCURACY[outcome.variant] >= floor.value
    assert any(outcome.kept for outcome in outcomes)


def effective(outcomes: Sequence[Outcome]) -> float:
    return sum(ACCURACY[o.variant] for o in outcomes if o.kept) / len(outcomes)


@every
@pytest.mark.parametrize("spec", ["poisson", "gamma:cv=4"])
def test_no_policy_exceeds_the_bound(name: str, spec: str) -> None:
    arrivals_s = came(spec, 1.2, 5000)
    outcomes, kinds = simulated(name, arrivals_s, mix.single(Constraints(max_latency_ms=30.0)))
    of = Class(
        30.0,
        tuple(ACCURACY.values()),
        tuple(offer.typical_ms[MAX_BATCH] / MAX_BATCH for offer in EXACT.offers),
    )
    most = bound(arrivals_s, kinds, [of], lanes=LANES)
    assert effective(outcomes) <= most.worth
    if name in ("slackfit", "gearshift"):
        assert effective(outcomes) > 0.985 * most.worth


# Names.


def test_a_policy_may_want_an_argument() -> None:
    assert "static:" in policies.names()
    assert assigned("static:bf16") == "bf16"


@pytest.mark.parametrize("name", ["fastest", "static", "static:", "slackfit:8", "", ":"])
def test_an_unknown_policy_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"there are .*slackfit.*static:VARIANT"):
        policies.get(name)


# Arrival, by the scheduler.


class Spy:
    """Assigns int8 and keeps the scenes."""

    late = False
    admits_all = True

    def __init__(self) -> None:
        self.scenes: list[Scene] = []

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        self.scenes.append(scene)
        return choices.offers[2 + scene.ticket % 2]

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        return batch(queue, moment)


def scheduler(rule: Rule) -> Scheduler:
    return Scheduler(
        {"m": Model(MENU, ALL)},
        Telemetry(overhead_start_ms=0.0),
        rule,
        Policy(accuracy_margin=0.0),
        lanes=LANES,
        max_batch=MAX_BATCH,
    )


def arrive(
    to: Scheduler, ticket: int, now_s: float, constraints: Constraints, rows: int = 1
) -> Waiting | None:
    decision = to.route("m", constraints, rows, now_s)
    if decision.verdict != "accepted":
        return None
    one = to.waiting(decision, constraints, rows, ticket, now_s)
    to.submit([one], now_s)
    return one


DUE = Constraints(max_latency_ms=30.0)


def test_the_scene_counts_what_waits_by_variant() -> None:
    spy = Spy()
    to = scheduler(spy)
    rng = Random(1)
    for ticket in range(400):
        now_s = ticket * 0.0005
        if ticket % 3 == 0:
            arrive(to, ticket, now_s, DUE, rows=rng.choice([1, 2]))
        elif ticket % 3 == 1 and to.queue.waiting:
            gone = rng.choice(to.queue.waiting)
            to.withdraw(gone)
            to.withdraw(gone)
        elif rng.random() < 0.2:
            to.take(0, now_s)
        before = Counter[str]()
        for one in to.queue.waiting:
            before[one.routed] += one.rows
        to.route("m", DUE, 1, now_s)
        assert +Counter(spy.scenes[-1].queued_rows) == before
    assert len({at.ticket for at in spy.scenes}) == len(spy.scenes)


def test_the_scene_knows_the_rate_from_the_start() -> None:
    spy = Spy()
    to = scheduler(spy)
    for ticket in range(2000):
        arrive(to, ticket, ticket * 0.001, DUE)
    for ticket in (30, 100, 500, 1999):
        assert spy.scenes[ticket].rate_per_s == pytest.approx(1000, rel=0.05)


def test_what_the_rule_assigns_is_what_the_decision_says() -> None:
    to = scheduler(policies.get("static:pruned"))
    decision = to.route("m", DUE, 2, 0.0)
    assert (decision.variant, decision.reason) == ("pruned", "assigned")
    assert decision.allowed[0] == "pruned" and sorted(decision.allowed) == sorted(NAMES)
    assert decision.accuracy == ACCURACY["pruned"]
    assert decision.cost_usd_per_million == MENU.by_name["pruned"].cost_usd_per_million(2)
    one = to.waiting(decision, DUE, 2, 1, 0.0)
    assert one.routed == "pruned"


def test_a_request_that_is_assigned_nothing_is_refused() -> None:
    to = scheduler(policies.get("static:tiny"))
    decision = to.route("m", Constraints(min_accuracy=Floor(0.92)), 1, 0.0)
    assert (decision.verdict, decision.variant) == ("overloaded", "")


@every
def test_only_those_that_predict_refuse_for_the_load(name: str) -> None:
    rule = policies.get(name)
    to = scheduler(rule)
    for ticket in range(5000):
        arrive(to, ticket, ticket * 1e-7, DUE)
    assert (len(to.queue.waiting) == 5000) == rule.admits_all
    assert to.route("m", Constraints(min_accuracy=Floor(0.99)), 1, 0.0).verdict == "unsatisfiable"
    assert to.route("m", Constraints(max_latency_ms=0.01), 1, 0.0).verdict == "unsatisfiable"


# Batches of what was assigned at arrival.


def tickets(members: Sequence[Waiting]) -> list[int]:
    return [member.ticket for member in members]


def test_a_batch_is_of_the_heads_variant_in_the_order_of_urgency() -> None:
    queue = [
        waiting(0, 10.0, "int8"),
        waiting(1, 11.0, "bf16"),
        waiting(2, 12.0, "int8"),
        waiting(3, 13.0, "int8"),
    ]
    made = batch(queue, moment())
    assert made.variant == "int8"
    assert tickets(made.members) == [0, 2, 3]
    assert made.promised_ms == pytest.approx(1.2 * (0.1 + 0.57 * 3))


def test_a_batch_is_as_large_as_the_heads_deadline_allows() -> None:
    # 1.2 (0.1 + 0.57 n) <= 5 for n up to 7.
    queue = [waiting(n, 5.0 + n, "int8") for n in range(20)]
    assert tickets(batch(queue, moment()).members) == list(range(7))
    queue = [waiting(n, 90.0 + n, "int8") for n in range(50)]
    assert len(batch(queue, moment()).members) == MAX_BATCH


def test_an_expired_head_does_not_run_nor_shrink_the_batch() -> None:
    queue = [waiting(0, 0.5, "int8"), *[waiting(n, 30.0, "int8") for n in range(1, 9)]]
    made = batch(queue, moment())
    assert tickets(made.expired) == [0]
    assert tickets(made.members) == list(range(1, 9))


def test_one_that_only_makes_it_at_the_median_runs_alone() -> None:
    queue = [waiting(0, 0.7, "int8"), waiting(1, 30.0, "int8")]
    assert tickets(batch(queue, moment()).members) == [0]


def test_one_whose_variant_is_not_ready_any_more_leaves() -> None:
    queue = [waiting(0, 30.0, "int8"), waiting(1, 30.0, "tiny")]
    made = batch(queue, moment(ready=frozenset({"tiny"})))
    assert (tickets(made.expired), tickets(made.members)) == ([0], [1])


# What each is known for.


def answered_by(name: str, spec: str = "poisson", load: float = 0.1) -> Counter[str]:
    outcomes, _ = simulated(name, came(spec, load, 1000), mix.single(DUE))
    return Counter(outcome.variant for outcome in outcomes if outcome.kept)


@pytest.mark.parametrize(
    ("name", "variant"),
    [("static_most_accurate", "fp32"), ("static_fastest", "tiny"), ("static:pruned", "pruned")],
)
def test_a_static_policy_never_adapts(name: str, variant: str) -> None:
    assert set(answered_by(name, load=0.1)) == {variant}
    assert set(answered_by(name, load=2.0)) == {variant}


def test_statics_keep_to_the_choices() -> None:
    middle = choices_of("bf16", "int8", "pruned")
    assert assigned("static_most_accurate", middle) == "bf16"
    assert assigned("static_fastest", middle) == "pruned"
    assert assigned("static:tiny", middle) is None


def test_chance_is_uniform_and_unrelated() -> None:
    drawn = np.array([chance(ticket) for ticket in range(20_000)])
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.025


def test_random_choice_is_uniform() -> None:
    three = choices_of("fp32", "int8", "tiny")
    counts = Counter(assigned("random_choice", three, ticket=ticket) for ticket in range(6000))
    assert set(counts) == {"fp32", "int8", "tiny"}
    assert all(abs(count - 2000) < 150 for count in counts.values())


def test_round_robin_takes_turns() -> None:
    turns = [assigned("round_robin", ticket=ticket) for ticket in range(12)]
    assert turns == NAMES * 2


def test_least_latency_takes_the_soonest_and_floods_it() -> None:
    assert assigned("least_latency") == "tiny"
    # Until its queue takes as long as the next one's first batch.
    assert assigned("least_latency", queued_rows={"tiny": 1}) == "tiny"
    assert assigned("least_latency", queued_rows={"tiny": 2}) == "distilled"
    one = least_latency.predicted_ms(MENU.by_name["tiny"], scene(queued_rows={"tiny": 40}))
    full_ms, rest_ms = 1.2 * (0.1 + 0.05 * 32), 1.2 * (0.1 + 0.05 * 9)
    assert one == pytest.approx(full_ms / LANES + rest_ms)


def test_model_switching_is_less_accurate_the_higher_the_load() -> None:
    rates = [0, 500, 1500, 3000, 5000, 12_000, 30_000, 1_000_000]
    chosen = [assigned("model_switching", rate_per_s=rate) for rate in rates]
    assert chosen == ["fp32", "fp32", "bf16", "int8", "pruned", "distilled", "tiny", "tiny"]
    # Everybody is served alike.
    for ticket in range(20):
        assert assigned("model_switching", ticket=ticket, rate_per_s=3000) == "int8"


@settings(max_examples=30)
@given(variant=st.sampled_from(NAMES), rate=st.floats(0.0, 60.0), limit_ms=st.floats(0.5, 100.0))
def test_a_variant_keeps_up_with_less_and_with_more_time(
    variant: str, rate: float, limit_ms: float
) -> None:
    offer = MENU.by_name[variant]
    if model_switching.keeps_up(offer, scene(), rate, limit_ms):
        assert model_switching.keeps_up(offer, scene(), rate * 0.9, limit_ms)
        assert model_switching.keeps_up(offer, scene(), rate, limit_ms * 1.1)
        # It can serve that much at all.
        assert rate < LANES / 1.2 * 1.2 / (VARIANTS[NAMES.index(variant)][2])


def test_what_the_table_says_of_model_switching_holds_in_a_replay() -> None:
    """At 0.8 of the load that int8 could carry it is int8, and all but 1 % are in time."""
    arrivals_s = came("poisson", 0.8, 5000)
    outcomes, _ = simulated("model_switching", arrivals_s, mix.single(DUE))
    late = outcomes[200:]
    assert Counter(o.variant for o in late).most_common(1)[0][0] == "int8"
    assert sum(outcome.kept for outcome in late) > 0.99 * len(late)


def test_infaas_takes_the_cheapest_that_suffices() -> None:
    assert assigned("infaas") == "tiny"
    assert assigned("infaas", choices_of("fp32", "bf16", "int8")) == "int8"


def test_infaas_passes_over_what_would_be_late_and_at_last_takes_the_fastest() -> None:
    # The cheapest by price may be a slow one that has no room left.
    cheap = Offer("cheap", 0.9, 0.9, 0.9, 1.0, (0.0, 9.0, 18.0), (0.0, 9.0, 18.0), 0.01)
    dear = Offer("dear", 0.9, 0.9, 0.9, 1.0, (0.0, 2.0, 4.0), (0.0, 2.0, 4.0), 1.0)
    both = Menu("m", "cheap", (cheap, dear), {}, {"cheap": cheap, "dear": dear})
    pace = Pace(both, {}, frozenset({"cheap", "dear"}))
    choices = in_order(both, both.offers)
    for queued, within_ms, expected in [
        ({}, 10.0, "cheap"),
        ({"dear": 2}, 10.0, "dear"),
        ({"dear": 30}, 10.0, "dear"),
        ({"cheap": 1}, 20.0, "cheap"),
        ({}, 8.0, "dear"),
    ]:
        got = assigned("infaas", choices, pace=pace, queued_rows=queued, within_ms=within_ms)
        assert got == expected


@settings(max_examples=60)
@given(
    rate_per_s=st.floats(1.0, 40_000.0),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True),
    within_ms=st.floats(3.0, 60.0),
)
def test_proteus_shares_solve_its_program(
    rate_per_s: float, names: list[str], within_ms: float
) -> None:
    at = scene(rate_per_s=rate_per_s, within_ms=within_ms)
    choices = choices_of(*names)
    offers = choices.offers
    found = proteus.shares(choices, at)
    assert sum(share for _, share in found) == pytest.approx(1.0)
    assert all(share >= 0 for _, share in found) and len(found) <= 2
    takes_ms = []
    for offer in offers:
        rows = max(n for n in range(1, MAX_BATCH + 1) if offer.typical_ms[n] <= within_ms)
        takes_ms.append(offer.typical_ms[rows] / rows)
    budget_ms = LANES / (proteus.BETA * rate_per_s / 1000)
    accuracy = [offer.accuracy for offer in offers]
    solved = linprog(
        [-a for a in accuracy],
        A_ub=[takes_ms],
        b_ub=[budget_ms],
        A_eq=[[1.0] * len(offers)],
        b_eq=[1.0],
    )
    if solved.status == 0:
        mean = sum(share * offer.accuracy for offer, share in found)
        assert mean == pytest.approx(-solved.fun, abs=1e-6)
        used = sum(share * takes_ms[offers.index(offer)] for offer, share in found)
        assert used <= budget_ms * (1 + 1e-9)
    else:
        assert [offer for offer, _ in found] == [offers[int(np.argmin(takes_ms))]]


def test_proteus_spreads_requests_in_these_shares() -> None:
    shares = {
        offer.name: share for offer, share in proteus.shares(choices_of(), scene(rate_per_s=4500.0))
    }
    assert set(shares) == {"int8", "pruned"} and min(shares.values()) > 0.1
    counts = Counter(assigned("proteus", ticket=t, rate_per_s=4500.0) for t in range(10_000))
    for name, share in shares.items():
        assert counts[name] == pytest.approx(share * 10_000, abs=200)


def test_proteus_waits_for_a_fuller_batch_while_the_first_can() -> None:
    rule = policies.get("proteus")
    queue = [waiting(0, 30.0), waiting(1, 31.0)]
    made = rule.dispatch(queue, moment())
    assert made.members == ()
    assert made.wait_until_s == pytest.approx(NOW_S + 0.030 - 1.2 * (0.1 + 0.57 * 3) / 1000)
    again = rule.dispatch(queue, moment(now_s=made.wait_until_s))
    assert tickets(again.members) == [0, 1]
    assert again.promised_ms <= (queue[0].deadline_s - made.wait_until_s) * 1000


def test_proteus_runs_a_full_batch_and_one_that_cannot_grow_at_once() -> None:
    rule = policies.get("proteus")
    full = [waiting(n, 60.0) for n in range(MAX_BATCH)]
    assert len(rule.dispatch(full, moment()).members) == MAX_BATCH
    many = [waiting(n, 10.0) for n in range(MAX_BATCH)]
    assert 0 < len(rule.dispatch(many, moment()).members) < MAX_BATCH


def test_proteus_keeps_no_lane_from_another_variant() -> None:
    rule = policies.get("proteus")
    queue = [waiting(0, 30.0, "int8"), waiting(1, 40.0, "pruned")]
    assert rule.dispatch(queue, moment(0.0, 0.0)).members == ()
    assert tickets(rule.dispatch(queue, moment(0.0, 5.0)).members) == [0]


def test_the_replay_wakes_when_proteus_has_waited() -> None:
    outcomes, _ = simulated("proteus", [1.0], mix.single(DUE), lanes=1)
    (only,) = outcomes
    assert only.variant == "fp32" and only.kept
    # It starts when two rows would just make it, and is one.
    assert only.latency_ms == pytest.approx(30.0 - 2.05, abs=1e-6)


def picked(slack_ms: float, *names: str) -> tuple[str | None, int]:
    offer, rows = slackfit.pick(choices_of(*names), Pace(MENU, {}, ALL), slack_ms, 1, moment())
    return (None if offer is None else offer.name), rows


def test_slackfit_is_slower_and_more_accurate_the_more_slack_there_is() -> None:
    much, some, little = (picked(slack) for slack in (1000.0, 20.0, 2.0))
    assert much[0] == "fp32"
    assert ACCURACY["fp32"] > ACCURACY[str(some[0])] > ACCURACY[str(little[0])]
    assert picked(0.1) == (None, 1)
    assert picked(1000.0, "tiny", "int8")[0] == "int8"


@settings(max_examples=60)
@given(slack_ms=st.floats(0.2, 120.0))
def test_slackfit_takes_the_largest_batch_of_the_slowest_bucket_that_fits(slack_ms: float) -> None:
    pace = Pace(MENU, {}, ALL)
    pairs = [
        (pace.promised_ms(offer, rows), rows, offer.name)
        for offer in MENU.offers
        for rows in range(1, MAX_BATCH + 1)
    ]
    low, high = min(pairs)[0], max(pairs)[0]
    width = (high - low) / slackfit.BUCKETS
    fitting = [pair for pair in pairs if pair[0] <= slack_ms]
    top = min(slackfit.BUCKETS - 1, int((max(fitting)[0] - low) / width))
    within = [pair for pair in fitting if pair[0] >= low + top * width - 1e-9]
    name, rows = picked(slack_ms)
    assert rows == max(pair[1] for pair in within)
    assert name in [pair[2] for pair in within if pair[1] == rows]


def test_slackfit_leaves_out_what_is_not_on_the_frontier() -> None:
    worse = Offer("worse", 0.8, 0.8, 0.8, 0.8, (0.0, 50.0, 90.0), (0.0, 50.0, 90.0), 1.0)
    better = Offer("better", 0.9, 0.9, 0.9, 1.0, (0.0, 2.0, 3.0), (0.0, 2.0, 3.0), 1.0)
    both = Menu("m", "better", (better, worse), {}, {"better": better, "worse": worse})
    pace = Pace(both, {}, frozenset({"better", "worse"}))
    at = Moment(0.0, (0.0,), {"m": pace}, max_batch=2)
    assert slackfit.pick(in_order(both, both.offers), pace, 100.0, 1, at) == (better, 2)


def test_slackfit_adapts_by_the_slack_alone() -> None:
    calm, busy = answered_by("slackfit", load=0.1), answered_by("slackfit", load=2.5)
    assert set(calm) <= {"fp32", "bf16"}
    assert busy["pruned"] + busy["distilled"] > 0.8 * sum(busy.values())


def test_slackfit_batches_only_those_that_may_be_answered_by_its_variant() -> None:
    queue = [
        waiting(0, 20.0, choices=choices_of("int8")),
        waiting(1, 21.0, choices=choices_of("bf16")),
        waiting(2, 22.0, choices=choices_of("int8", "bf16")),
    ]
    made = policies.get("slackfit").dispatch(queue, moment())
    assert (made.variant, tickets(made.members)) == ("int8", [0, 2])


def test_eligible_choices_are_what_policies_are_given() -> None:
    kind = eligible(Constraints(min_accuracy=Floor(0.92)), "accuracy", MENU, 0.0, 1)
    for name in POLICIES:
        for ticket in range(6):
            got = assigned(name, kind.choices, ticket=ticket, rate_per_s=1e5)
            assert got is None or ACCURACY[got] >= 0.92
