"""What a search does next, and why it leaves things alone: pure functions of the record.

`next_action(record, limits)` knows nothing but what was found, so a search that was killed goes on
as if it had not been. The order:

1. Sensitivity. The reference, then the reference in every arithmetic: no training, and what each
   arithmetic gains and loses on this network, which predicts what it does to the others; an
   arithmetic that another beats here is not tried again. (Layer by layer is `int8-mixed`'s
   business: it measures what each layer loses alone, and says which stay in float.) Then the
   middle strength of every family, untrained: what a shape costs to run does not depend on its
   weights, so the objective is known before anything is trained, in float and, where float gains,
   in the fastest arithmetic; and what it loses untrained says which family the network bears best.
2. Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943) over the shapes that are left:
   for few epochs, then a share of them for more. Of each family first the strength in the middle;
   what it loses says on which side to go on; other strengths are measured, untrained, when their
   turn comes. A shape is worth training if, at the least that it
   may lose, it would add to the hypervolume of what is there and of what is hoped for; those that
   would add most go on.
3. As soon as a shape has had all its epochs it is executed, in the arithmetics that would add.
4. While there is time, shapes half-way between the strongest that keeps the drop and the weakest
   that does not; then what halving left behind and may still add; and what was trained for few
   epochs alone is executed where that adds.

A budget is kept by what the like of an action took so far, with the time set aside that building
the frontier will take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from compressors.search import facts
from compressors.search.facts import Limits
from compressors.search.frontier import Point
from compressors.search.record import Evaluated, Record
from compressors.search.space import FAMILIES, REFERENCE, Candidate, Shape, between

_CLOSE = 0.06  # strengths nearer than this are one
_STRONGEST = 0.95


@dataclass(frozen=True)
class Measure:
    """Find out what an untrained shape costs to run."""

    shape: Shape
    arithmetic: str


@dataclass(frozen=True)
class Evaluate:
    """Train a candidate and score it on validation: through an engine, or its float network."""

    candidate: Candidate
    engine: bool


@dataclass(frozen=True)
class Finish:
    """Nothing more is worth doing, or affordable."""

    reason: str


Action = Measure | Evaluate | Finish


def next_action(record: Record, limits: Limits) -> Action:
    """The most useful thing to do next that the budget allows."""
    if facts.reference(record) is None:
        return Evaluate(Candidate(REFERENCE, 0, "fp32"), engine=True)  # whatever it takes
    postponed = None
    for stage in (_arithmetic, _measure, _execute, _halving, _refine, _rest, _execute_rest):
        for action in stage(record, limits):
            if _affordable(action, record, limits):
                return action
            postponed = postponed or action
            break  # the later actions of a stage rest on the earlier ones
    if postponed is not None:
        return Finish(f"the budget of {limits.budget_s:.0f} s is used up")
    return Finish("every recipe worth trying was tried")


def _arithmetic(record: Record, limits: Limits) -> Iterator[Action]:
    for arithmetic in ("fp32", *limits.arithmetics):
        candidate = Candidate(REFERENCE, 0, arithmetic)
        if not record.rejected(arithmetic) and not facts.find(record, candidate, engine=True):
            yield Evaluate(candidate, engine=True)


def _measure(record: Record, limits: Limits) -> Iterator[Action]:
    for family in limits.families:
        yield from _unmeasured(_middle(family), record)


def _unmeasured(shape: Shape, record: Record) -> Iterator[Action]:
    for arithmetic in dict.fromkeys(("fp32", facts.fastest(record))):
        if facts.refused(shape, record) or record.measured(shape, arithmetic):
            continue
        if arithmetic == "fp32" or not facts.pointless(shape, record):
            yield Measure(shape, arithmetic)


def _halving(record: Record, limits: Limits) -> Iterator[Action]:
    alive = _in_order(record, limits)
    for rung, epochs in enumerate(limits.rungs):
        for shape in alive:
            candidate = Candidate(shape, epochs, "fp32")
            if facts.find(record, candidate) or record.rejected(candidate):
                continue
            if facts.hopeless(shape, record, limits):
                continue
            if rung == 0 and not facts.adds_nothing(shape, record, limits):
                yield from _unmeasured(shape, record)
            if rung > 0 or not facts.adds_nothing(shape, record, limits):
                yield Evaluate(candidate, engine=False)
        there = [e for s in alive if (e := facts.find(record, Candidate(s, epochs, "fp32")))]
        if rung + 1 < len(limits.rungs):
            count = math.ceil(len(there) * limits.keep)
            alive = [e.candidate.shape for e in _promising(there, count, record, limits)]


def _execute(record: Record, limits: Limits) -> Iterator[Action]:
    """What was trained for all epochs, where it adds to the frontier, the most first."""
    full = [e for e in facts.trained(record) if e.candidate.epochs == limits.rungs[-1]]
    yield from _executions(full, record, limits)


def _rest(record: Record, limits: Limits) -> Iterator[Action]:
    """What halving left behind and is expected to add, trained for all epochs."""
    short = [e for e in facts.trained(record) if e.candidate.epochs < limits.rungs[-1]]
    done = [e.point for e in facts.executed(record)]
    for e in _promising(short, len(short), record, limits):
        if facts.gain(facts.expected(e, record, limits), done, record, limits) <= facts.WORTH:
            continue
        candidate = Candidate(e.candidate.shape, limits.rungs[-1], "fp32")
        if not record.rejected(candidate) and not facts.hopeless(candidate.shape, record, limits):
            yield Evaluate(candidate, engine=False)


def _execute_rest(record: Record, limits: Limits) -> Iterator[Action]:
    yield from _executions(facts.trained(record), record, limits)


def _executions(trained: Sequence[Evaluated], record: Record, limits: Limits) -> Iterator[Action]:
    done = [e.point for e in facts.executed(record)]
    gains = []
    for e in trained:
        for arithmetic in facts.useful(record):
            candidate = Candidate(e.candidate.shape, e.candidate.epochs, arithmetic)
            if not facts.find(record, candidate, engine=True) and not record.rejected(candidate):
                hoped = facts.predicted(e, arithmetic, record)
                gains.append((facts.gain(hoped, done, record, limits), candidate))
    for gain, candidate in sorted(gains, key=lambda pair: -pair[0]):
        if gain > facts.WORTH:
            yield Evaluate(candidate, engine=True)


def _refine(record: Record, limits: Limits) -> Iterator[Action]:
    """Of each family the shape in the middle between the strongest that keeps the drop and the
    weakest that does not; first where it would add most, were everything linear in between."""
    done = [e.point for e in facts.executed(record)]
    found = []
    for family in limits.families:
        strongest = facts.first_shapes([family])[-1]
        if not strongest.strength or facts.refused(strongest, record):
            continue
        for weaker, stronger in pairwise(_edges(family, record)):
            middle = between(weaker.shape, stronger.shape)
            keeps = weaker.drop <= limits.max_drop < stronger.drop
            if not keeps or stronger.shape.strength - weaker.shape.strength < _CLOSE:
                continue
            cost, drop = (weaker.cost + stronger.cost) / 2, (weaker.drop + stronger.drop) / 2
            drop = min(drop, (weaker.drop + limits.max_drop) / 2)  # else it could add nothing
            hoped = Point(str(middle), cost, 0.0, drop, drop, drop)
            found.append((facts.gain(hoped, done, record, limits), middle))
    for gain, middle in sorted(found, key=lambda pair: -pair[0]):
        if gain <= facts.WORTH or facts.refused(middle, record) or facts.pointless(middle, record):
            continue
        yield from _unmeasured(middle, record)
        candidate = Candidate(middle, limits.rungs[-1], "fp32")
        known = facts.find(record, candidate) or record.rejected(candidate)
        if known is None and not facts.adds_nothing(middle, record, limits):
            yield Evaluate(candidate, engine=False)


@dataclass(frozen=True)
class _Edge:
    """A shape, what it costs in the arithmetic that suits it, and its drop in float."""

    shape: Shape
    cost: float
    drop: float


def _edges(family: str, record: Record) -> list[_Edge]:
    """The trained shapes of a family, weakest first, between nothing and almost everything."""
    fastest = facts.fastest(record)
    base = facts.find(record, Candidate(REFERENCE, 0, fastest), engine=True)
    student = facts.trained_for(Shape("student"), record) if FAMILIES[family].student else None
    drop = student.drop if student is not None else 0.0
    weakest = Shape("student") if FAMILIES[family].student else REFERENCE
    seen = record.measured(weakest, fastest) or base
    assert seen is not None  # the first stage ran the reference
    found = [_Edge(Shape(family), seen.objective, drop)]
    known = [e for e in facts.trained(record) if e.candidate.shape.family == family]
    for e in sorted(known, key=lambda e: e.candidate.shape):
        point = facts.predicted(e, facts.suited(e.candidate.shape, record), record)
        found.append(_Edge(e.candidate.shape, point.objective, e.drop))
    return [*found, _Edge(Shape(family, _STRONGEST), 0.0, 1.0)]


def _in_order(record: Record, limits: Limits) -> list[Shape]:
    """The shapes that may be trained: the middle strength of each family, then what is on the side
    that it points to, then the rest; families first that lose least untrained."""
    order: list[tuple[int, float, Shape]] = []
    for family in limits.families:
        middle = _middle(family)
        seen = record.measured(middle, "fp32")
        # A student has learnt nothing yet; it is tried first, as one training tells all of it.
        lost = seen.drop if seen is not None and seen.drop is not None else -1.0
        tried = facts.trained_for(middle, record)
        stronger_next = tried is not None and tried.drop * facts.hope(tried, limits) <= (
            limits.max_drop
        )
        for shape in facts.first_shapes([family]):
            if facts.refused(shape, record) or facts.pointless(shape, record):
                continue
            ahead = (shape > middle) == stronger_next
            order.append((0 if shape == middle else 1 if ahead else 2, lost, shape))
    return [shape for _, _, shape in sorted(order)]


def _middle(family: str) -> Shape:
    shapes = facts.first_shapes([family])
    return shapes[len(shapes) // 2]


def _promising(
    there: Sequence[Evaluated], count: int, record: Record, limits: Limits
) -> list[Evaluated]:
    """At most `count`, one after the other the one whose expected point adds most to what is
    there and to those before it; those that would add nothing even at the best are left out."""
    done = [e.point for e in facts.executed(record)]
    left = list(there)
    found: list[Evaluated] = []
    while left and len(found) < count:
        gains = {
            e: (
                facts.gain(facts.expected(e, record, limits), done, record, limits),
                facts.gain(facts.hoped(e, record, limits), done, record, limits),
            )
            for e in left
        }
        left = [e for e in left if gains[e][1] > facts.WORTH]
        if left:
            best = max(left, key=lambda e: gains[e])
            left.remove(best)
            found.append(best)
            done.append(facts.expected(best, record, limits))
    return found


def build_seconds(record: Record, limits: Limits) -> float:
    """What building the frontier, as far as it is known, will take."""
    found = facts.frontier(record, limits)
    return sum(e.seconds for e in found) + limits.build_s * max(1, len(found))


def _affordable(action: Action, record: Record, limits: Limits) -> bool:
    """Whether it fits the budget by what the like of it took. What was never done is tried."""
    left = limits.budget_s - record.seconds - build_seconds(record, limits)
    if left <= 0:
        return False
    executing = max((e.seconds for e in facts.executed(record)), default=0.0)
    if isinstance(action, Evaluate) and not action.engine:
        rates = [
            e.seconds / e.candidate.epochs
            for e in record.evaluated()
            if not e.engine and e.candidate.epochs
        ]
        # What is trained and never executed is of no use; and one more will have to be built.
        after = 2 * executing + limits.build_s
        return action.candidate.epochs * max(rates, default=0.0) + after <= left
    if isinstance(action, Evaluate):
        return 2 * executing + limits.build_s <= left
    return True
