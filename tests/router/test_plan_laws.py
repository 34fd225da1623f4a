"""Laws of the tariff and of the plan: the hull, the lowest price, and what can only raise it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.choices import Choices, eligible, in_order
from router.constraints import Constraints
from router.menu import Menu, Offer
from router.pace import NOTHING, Pace, Tariff
from router.plan import plan
from router.queue import Expected, Waiting
from router.sample import SAMPLES
from tests.laws import examples
from tests.router.builders import dominated, menu, menus, offer


def whole(name: str, accuracy: int, ms: int) -> Offer:
    """An offer whose figures floats add without rounding; batches of one."""
    return offer(name, accuracy / 1024, first_ms=ms / 64, tail=1.0, max_batch=1)


@st.composite
def plates(draw: st.DrawFn, model: str = "m") -> Menu:
    figures = draw(
        st.lists(st.tuples(st.integers(0, 1024), st.integers(1, 640)), min_size=1, max_size=6)
    )
    return menu(*[whole(f"v{n}", *both) for n, both in enumerate(figures)], model=model)


@st.composite
def kinds(draw: st.DrawFn, plate: Menu) -> Choices:
    names = draw(st.lists(st.sampled_from(plate.offers), min_size=1, unique=True))
    objective = draw(st.sampled_from(["accuracy", "cost", "latency"]))
    if draw(st.booleans()):
        return in_order(plate, names)
    return eligible(Constraints(), objective, plate, 0.0, 1).choices


def request(ticket: int, due_ms: float, choices: Choices, rows: int = 1) -> Waiting:
    due_s = due_ms / 1000
    return Waiting(due_s, ticket, rows, due_s, choices, choices.offers[0].name)


@st.composite
def queues(draw: st.DrawFn, plate: Menu, most: int = 12) -> list[Waiting]:
    count = draw(st.integers(0, most))
    choices = [draw(kinds(plate)) for _ in range(2)]
    return sorted(
        request(
            ticket,
            1000 * draw(st.integers(1, 128)) / 1024,
            draw(st.sampled_from(choices)),
            draw(st.integers(1, 4)),
        )
        for ticket in range(count)
    )


lanes = st.lists(st.integers(0, 640).map(lambda n: n / 64), min_size=1, max_size=3)


def pace(plate: Menu, slowdown: dict[str, float] | None = None) -> Pace:
    return Pace(plate, slowdown or {}, frozenset(plate.by_name))


def price(
    queue: Sequence[Waiting], free_in_ms: Sequence[float], *plates: Menu, reserve_ms: float = 0.0
) -> float:
    paces = {plate.model: pace(plate) for plate in plates}
    prices = plan(sorted(queue), (), 0.0, free_in_ms, paces, reserve_ms).prices
    assert len(set(prices.values())) <= 1
    return next(iter(prices.values()), 0.0)


# The tariff.


@given(menus(), st.sampled_from(["accuracy", "cost", "latency"]), st.data())
def test_a_tariff_is_the_best_choice_at_every_price(
    plate: Menu, objective: str, data: st.DataObject
) -> None:
    """It maximises worth less price x time, compared with trying all of them."""
    slowdown = data.draw(
        st.dictionaries(st.sampled_from(sorted(plate.by_name)), st.floats(0.5, 4.0))
    )
    ready = data.draw(st.sets(st.sampled_from(sorted(plate.by_name)), min_size=1))
    choices = eligible(Constraints(), objective, plate, 0.005, 1).choices  # type: ignore[arg-type]
    tariff = Pace(plate, slowdown, frozenset(ready)).tariff(choices)
    ms = {o: o.row_ms * slowdown.get(o.name, 1.0) for o in plate.offers}
    worth = dict(zip(choices.offers, choices.worth, strict=True))
    between = [(low + high) / 2 for low, high in pairwise(tariff.prices)]
    beyond = [2 * tariff.prices[-1]] if tariff.prices else []
    for at_price in (0.0, *tariff.prices, *between, *beyond):
        chosen = tariff.offers[tariff.at(at_price)]
        best = max(worth[o] - at_price * ms[o] for o in plate.offers if o.name in ready)
        tolerance = 1e-9 * (1 + at_price * max(ms.values()))
        assert worth[chosen] - at_price * ms[chosen] >= best - tolerance
    assert all(0 < low < high for low, high in pairwise((0.0, *tariff.prices)) if low)
    assert all(one > 0 for one in tariff.prices)
    assert all(slower > faster for slower, faster in pairwise(tariff.row_ms))
    assert all(worth[one] > worth[other] for one, other in pairwise(tariff.offers))
    assert tariff.row_ms == tuple(ms[o] for o in tariff.offers)
    assert {o.name for o in tariff.offers} <= ready
    assert len(tariff.offers) == len(tariff.prices) + 1


@given(menus(), st.data())
def test_a_dominated_variant_is_in_no_tariff(plate: Menu, data: st.DataObject) -> None:
    """Under the other objectives each one more is a step more, which moves prices."""
    better = data.draw(st.sampled_from(plate.offers))
    worse = dominated(better, "z")
    more = menu(*plate.offers, worse, not_worse=plate.not_worse)
    for objective in ("accuracy", "cost", "latency"):
        before = pace(plate).tariff(eligible(Constraints(), objective, plate, 0.0, 1).choices)
        after = pace(more).tariff(eligible(Constraints(), objective, more, 0.0, 1).choices)
        assert worse not in after.offers
        if objective == "accuracy":
            assert before == after


def test_nothing_ready_is_no_tariff() -> None:
    plate = menu(offer("a"))
    assert Pace(plate, {}, frozenset()).tariff(in_order(plate, plate.offers)) is NOTHING


# The plan: the lowest price at which no prefix is late.


def taken_ms(waiting: Waiting, tariff: Tariff, at_price: float, slack_ms: float) -> float:
    """Lane time at a price; who cannot take its best in time anyway takes what it can."""
    at = tariff.at(at_price)
    fits = [n for n, o in enumerate(tariff.offers) if o.promised_ms[1] * waiting.rows <= slack_ms]
    return tariff.row_ms[max(at, fits[0] if fits else len(tariff.offers) - 1)] * waiting.rows


def brute(
    queue: Sequence[Waiting], free_in_ms: Sequence[float], plate: Menu, reserve_ms: float
) -> tuple[float, float]:
    """The lowest sufficient price, or else the highest, and what it leaves; by trying all."""
    if not queue:
        return 0.0, math.inf
    paced = pace(plate)
    prices = sorted({0.0, *[p for w in queue for p in paced.tariff(w.choices).prices]})
    for at_price in prices:
        spare, done = math.inf, 0.0
        for waiting in queue:
            slack_ms = waiting.due_s * 1000 - reserve_ms
            done += taken_ms(waiting, paced.tariff(waiting.choices), at_price, slack_ms)
            room = sum(max(0.0, slack_ms - free) for free in free_in_ms)
            spare = min(spare, room - done)
        if spare >= 0:
            break
    return at_price, spare


@examples(300)
@given(plates(), lanes, st.integers(0, 32), st.data())
def test_the_price_is_the_lowest_at_which_nobody_is_late(
    plate: Menu, free_in_ms: list[float], reserve: int, data: st.DataObject
) -> None:
    queue = data.draw(queues(plate))
    paces = {"m": pace(plate)}
    planned = plan(queue, (), 0.0, free_in_ms, paces, reserve / 64)
    at_price, spare = brute(queue, free_in_ms, plate, reserve / 64)
    assert planned.prices == {"m": at_price}
    assert planned.spare_ms == spare
    assert planned.crowded or spare >= 0
    assert list(planned.sample) == queue
    tariffs = [paces["m"].tariff(w.choices) for w in queue]
    assert list(planned.planned_ms) == list(
        accumulate(
            taken_ms(w, tariff, at_price, w.due_s * 1000 - reserve / 64)
            for w, tariff in zip(queue, tariffs, strict=True)
        )
    )
    assert list(planned.least_ms) == [
        t.row_ms[-1] * w.rows for w, t in zip(queue, tariffs, strict=True)
    ]


@given(plates(), lanes, st.data(), st.floats(0, 0.5))
def test_where_the_search_begins_changes_nothing(
    plate: Menu, free_in_ms: list[float], data: st.DataObject, hint: float
) -> None:
    queue = data.draw(queues(plate))
    coming = [Expected(w.choices, w.due_s * 1000, 0.1) for w in queue[:2]]
    args = (queue, coming, 0.0, free_in_ms, {"m": pace(plate)})
    assert plan(*args, hint=hint) == plan(*args)


@given(plates(), lanes, st.data())
def test_what_adds_work_or_takes_time_away_never_lowers_the_price(
    plate: Menu, free_in_ms: list[float], data: st.DataObject
) -> None:
    """More that waits, a lane less, a lane busier, a deadline tighter, more kept free.

    A tighter deadline may take its own request out of question: it then has no choice but a fast
    one, whatever the price. So deadlines are tightened here no further than its best can make.
    """
    queue = data.draw(queues(plate))
    before = price(queue, free_in_ms, plate)
    more = data.draw(queues(plate, most=3))
    added = [*queue, *[w._replace(ticket=100 + w.ticket) for w in more]]
    assert price(added, free_in_ms, plate) >= before
    if len(free_in_ms) > 1:
        assert price(queue, free_in_ms[1:], plate) >= before
    busier = [free_in_ms[0] + data.draw(st.integers(0, 64)) / 64, *free_in_ms[1:]]
    assert price(queue, busier, plate) >= before
    if queue:
        n = data.draw(st.integers(0, len(queue) - 1))
        best = pace(plate).tariff(queue[n].choices).offers[0]
        least_s = math.ceil(best.promised_ms[1] * queue[n].rows / 1000 * 1024) / 1024
        if queue[n].due_s >= least_s:
            due_s = data.draw(st.sampled_from([least_s, (least_s + queue[n].due_s) / 2]))
            tighter = [*queue[:n], queue[n]._replace(due_s=due_s), *queue[n + 1 :]]
            assert price(tighter, free_in_ms, plate) >= before


@given(plates(), lanes, st.data(), st.floats(0.001, 1.0), st.floats(1.0, 100.0))
def test_more_to_come_never_lowers_the_price(
    plate: Menu, free_in_ms: list[float], data: st.DataObject, rate: float, within_ms: float
) -> None:
    queue = data.draw(queues(plate))
    kind = data.draw(kinds(plate))
    paces = {"m": pace(plate)}

    def coming(rate: float) -> float:
        expected = [Expected(kind, within_ms, rate)] if rate else []
        return plan(queue, expected, 0.0, free_in_ms, paces).prices.get("m", 0.0)

    assert coming(2 * rate) >= coming(rate)
    assert coming(rate) >= coming(0.0)


@given(plates(), lanes, st.data())
def test_the_order_of_equals_and_lanes_does_not_matter(
    plate: Menu, free_in_ms: list[float], data: st.DataObject
) -> None:
    queue = data.draw(queues(plate))
    turned = sorted(w._replace(ticket=-w.ticket) for w in queue)
    assert price(turned, free_in_ms[::-1], plate) == price(queue, free_in_ms, plate)


@given(plates(), lanes, st.data(), st.integers(-3, 3))
def test_a_faster_clock_scales_the_price(
    plate: Menu, free_in_ms: list[float], data: st.DataObject, power: int
) -> None:
    by = 2.0**power
    figures = {o.name: o for o in plate.offers}
    scaled = menu(
        *[
            offer(o.name, o.accuracy, first_ms=o.row_ms * by, tail=1.0, max_batch=1)
            for o in figures.values()
        ]
    )
    queue = data.draw(queues(plate))

    def there(w: Waiting) -> Waiting:
        choices = Choices(
            scaled, tuple(scaled.by_name[o.name] for o in w.choices.offers), w.choices.worth
        )
        return w._replace(due_s=w.due_s * by, deadline_s=w.deadline_s * by, choices=choices)

    moved = [there(w) for w in queue]
    after = price(moved, [ms * by for ms in free_in_ms], scaled)
    assert after == price(queue, free_in_ms, plate) / by


def many(model: str = "m", steps: int = 20) -> Menu:
    """A menu with many prices between its best and its fastest."""
    return menu(
        *[
            offer(
                f"v{n:02}", 0.95 - 0.001 * n * n / 4, first_ms=4.0 * 0.8**n, tail=1.0, max_batch=1
            )
            for n in range(steps)
        ],
        model=model,
    )


@pytest.mark.parametrize("count", [100, 333, 1000, 5000])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_sample_of_a_long_queue_of_alike_prices_it_as_the_whole_would(
    count: int, spread: float
) -> None:
    """Within a step of the tariff, and its lane time within the sample's resolution."""
    plate = many()
    choices = eligible(Constraints(), "accuracy", plate, 0.0, 1).choices
    for each_ms in (0.1, 0.35, 0.8, 1.7):
        horizon_ms = count * each_ms
        queue = [
            request(n, horizon_ms * (1 - spread + spread * (n + 1) / count), choices)
            for n in range(count)
        ]
        planned = plan(queue, (), 0.0, (0.0,), {"m": pace(plate)})
        exact, _ = brute(queue, (0.0,), plate, 0.0)
        tariff = pace(plate).tariff(choices)
        assert len(planned.sample) <= SAMPLES + 1
        assert abs(tariff.at(planned.prices["m"]) - tariff.at(exact)) <= 1
        row_ms = tariff.row_ms[tariff.at(exact)]
        assert planned.planned_ms[-1] == pytest.approx(row_ms * count, rel=0.25)


# Several models.


def crowd(
    plate: Menu, count: int, within_ms: float, first: int = 0, choices: Choices | None = None
) -> list[Waiting]:
    choices = choices or eligible(Constraints(), "accuracy", plate, 0.0, 1).choices
    return [request(first + n, within_ms * (1 + n / count), choices) for n in range(count)]


def several(*counts: int) -> tuple[dict[str, Pace], list[Waiting]]:
    plates = {f"m{n}": many(f"m{n}") for n in range(len(counts))}
    queue: list[Waiting] = []
    for n, (plate, count) in enumerate(zip(plates.values(), counts, strict=True)):
        queue += crowd(plate, count, 30.0, 1000 * n)
    return {model: pace(plate) for model, plate in plates.items()}, sorted(queue)


def test_models_share_a_price_until_one_could_do_with_less_on_its_own_share() -> None:
    paces, queue = several(6, 6)
    even = plan(queue, (), 0.0, (0.0,), paces)
    assert even.prices["m0"] == even.prices["m1"]
    paces, queue = several(3, 28)
    uneven = plan(queue, (), 0.0, (0.0,), paces)
    assert uneven.prices["m0"] == 0.0 < uneven.prices["m1"]
    assert not uneven.over


@pytest.mark.parametrize("flood", [10, 20, 40, 200, 1000])
def test_nobodys_flood_costs_another_model_more_than_its_share_would(flood: int) -> None:
    """Three models: one modest, one in between, one that floods."""
    paces, queue = several(1, 9, flood)
    planned = plan(queue, (), 0.0, (0.0, 0.0), paces)
    for model in ("m0", "m1"):
        own = [w for w in queue if w.choices.model == model]
        # A third of two lanes, as one that is so much slower would price it.
        slowed = {
            model: Pace(
                paces[model].menu, dict.fromkeys(paces[model].menu.by_name, 3.0), paces[model].ready
            )
        }
        alone = plan(own, (), 0.0, (0.0, 0.0), slowed).prices[model]
        assert planned.prices[model] <= alone * 3 + 1e-12


def test_what_a_modest_model_leaves_of_its_share_is_for_the_others() -> None:
    """A single request of another model does not halve the lanes."""
    paces, queue = several(1, 28)
    alone = [w for w in queue if w.choices.model == "m1"]
    without = plan(alone, (), 0.0, (0.0,), paces).prices["m1"]
    with_it = plan(queue, (), 0.0, (0.0,), paces)
    tariff = paces["m1"].tariff(alone[0].choices)
    assert with_it.prices["m0"] == 0.0
    assert tariff.at(with_it.prices["m1"]) - tariff.at(without) <= 1


def test_a_weight_is_a_larger_share() -> None:
    paces, queue = several(9, 60)
    even = plan(queue, (), 0.0, (0.0,), paces)
    heavy = plan(queue, (), 0.0, (0.0,), paces, weights={"m0": 5.0})
    assert heavy.prices["m0"] < even.prices["m0"]


def test_who_wants_more_than_its_share_when_not_all_can_be_served_is_named() -> None:
    """Two in three thousand are too few for the sample, but they are known to come."""
    paces, queue = several(2, 3000)
    first = {w.choices.model: w.choices for w in queue}
    coming = [Expected(first["m0"], 30.0, 0.05), Expected(first["m1"], 30.0, 80.0)]
    planned = plan(queue, coming, 0.0, (0.0,), paces)
    assert planned.crowded
    assert planned.over == {"m1"}
    assert planned.prices["m0"] == 0.0 < planned.prices["m1"]


def test_each_model_is_sampled_by_itself() -> None:
    """One request among three thousand stands for itself."""
    paces, queue = several(1, 3000)
    planned = plan(queue, (), 0.0, (0.0,), paces)
    assert [w.choices.model for w in planned.sample].count("m0") == 1
    assert planned.prices["m0"] == 0.0 < planned.prices["m1"]
    # One that has nothing to do has a price as well: it is asked for at any time.
    assert set(plan([], (), 0.0, (0.0,), paces).prices) == {"m0", "m1"}


def test_who_cannot_take_its_best_anyway_is_no_reason_for_others_to_give_way() -> None:
    plate = menu(whole("slow", 960, 8 * 64), whole("fast", 900, 64))
    choices = eligible(Constraints(), "accuracy", plate, 0.0, 1).choices
    hurried, patient = request(0, 2.0, choices), request(1, 100.0, choices)
    assert price([hurried, patient], [0.0], plate) == 0.0
    # Nor is it when it is only expected.
    tight = Expected(choices, 2.0, 0.5)
    assert plan([patient], [tight], 0.0, (0.0,), {"m": pace(plate)}).prices == {"m": 0.0}
