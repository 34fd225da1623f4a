"""What a search does next, and why it leaves things alone: pure functions of the record.

`next_action(record, limits)` knows nothing but what was found, so a search that was killed goes on
as if it had not been. The order:

1. The reference, then the reference in every arithmetic: no training, and what each arithmetic
   gains and loses on this network, which predicts what it does to the others.
2. Every shape, untrained, in float and in the fastest arithmetic worth having: what it costs to
   run does not depend on its weights, so the objective is known before anything is trained.
3. Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943) over the shapes that are left:
   all for few epochs, a share of them for more. A shape is promising if it is the fastest that may
   still keep the drop, then if it adds to the frontier.
4. The trained ones in every arithmetic that may add to the frontier.
5. While there is time, shapes half-way between the strongest that keeps the drop and the weakest
   that does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from compressors.search.frontier import Point, beaten_by, front
from compressors.search.record import Evaluated, Record, Rejected
from compressors.search.space import FAMILIES, REFERENCE, Candidate, Shape, between

_HOPE = 0.5
"""Of a drop after few epochs, the share that at best remains after many: on the bundled digits one
epoch after pruning half of the channels left 2.6 times the drop of eight."""
_RESERVE = 0.15  # of the budget, for building what was found and measuring it on test
_CLOSE = 0.06  # strengths nearer than this are one
_STRONGEST = 0.95


@dataclass(frozen=True)
class Limits:
    """What a search may do.

    Attributes:
        max_drop: the most that the metric may fall, as a share: 0.005 for half a point.
        budget_s: seconds for everything, building what was found included.
        families: of shapes, in the order of preference.
        arithmetics: besides fp32.
        rungs: epochs of each round of successive halving, rising.
        keep: the share of shapes that goes on to the next rung.
    """

    max_drop: float
    budget_s: float
    families: tuple[str, ...]
    arithmetics: tuple[str, ...]
    rungs: tuple[int, ...] = (1, 3, 8)
    keep: float = 1 / 3


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
    postponed = None
    for stage in (_arithmetic, _measure, _halving, _execute, _refine):
        for action in stage(record, limits):
            if _affordable(action, record, limits):
                return action
            postponed = postponed or action
            break  # the later actions of a stage rest on the earlier ones
    if postponed is not None:
        return Finish(f"the budget of {limits.budget_s:.0f} s is used up")
    return Finish("every recipe worth trying was tried")


def frontier(record: Record, limits: Limits) -> list[Evaluated]:
    """What is worth serving, by objective: executed, within the allowed drop, beaten by none."""
    best = {e.point.name: e for e in _executed(record)}
    there = [e for e in best.values() if e.drop <= limits.max_drop]
    names = {point.name for point in front([e.point for e in there])}
    return sorted((e for e in there if e.point.name in names), key=lambda e: e.objective)


def rejections(record: Record, limits: Limits) -> Iterator[tuple[str, str]]:
    """(what, why) for everything that was looked at and is not in the frontier."""
    kept = {e.candidate for e in frontier(record, limits)}
    for finding in record.findings:
        if isinstance(finding, Rejected):
            what = finding.what
            yield what.name if isinstance(what, Candidate) else str(what), finding.reason
    for shape in _shapes(record, limits):
        if reason := _slow(shape, record) or _hopeless(shape, record, limits):
            yield str(shape), reason
    for evaluated in {e.point.name: e for e in _executed(record)}.values():
        if evaluated.candidate in kept:
            continue
        if evaluated.drop > limits.max_drop:
            yield (
                evaluated.candidate.name,
                f"loses {100 * evaluated.drop:.2f} points, {100 * limits.max_drop:g} are allowed",
            )
        elif better := beaten_by(evaluated.point, [e.point for e in _executed(record)]):
            yield evaluated.candidate.name, f"{better.name} is not worse in either and beats it"


def reference(record: Record) -> Evaluated | None:
    """The reference in fp32: what drops are from and speed-ups against."""
    return _find(record, Candidate(REFERENCE, 0, "fp32"), engine=True)


def _arithmetic(record: Record, limits: Limits) -> Iterator[Action]:
    for arithmetic in ("fp32", *limits.arithmetics):
        candidate = Candidate(REFERENCE, 0, arithmetic)
        if not record.rejected(arithmetic) and not _find(record, candidate, engine=True):
            yield Evaluate(candidate, engine=True)


def _measure(record: Record, limits: Limits) -> Iterator[Action]:
    for shape in _first_shapes(limits):
        yield from _unmeasured(shape, record)


def _unmeasured(shape: Shape, record: Record) -> Iterator[Action]:
    for arithmetic in dict.fromkeys(("fp32", _fastest(record))):
        if not record.rejected(shape) and not record.measured(shape, arithmetic):
            yield Measure(shape, arithmetic)


def _halving(record: Record, limits: Limits) -> Iterator[Action]:
    alive = [s for s in _middle_first(_first_shapes(limits)) if not record.rejected(s)]
    alive = [s for s in alive if not _slow(s, record)]
    for rung, epochs in enumerate(limits.rungs):
        for shape in alive:
            candidate = Candidate(shape, epochs, "fp32")
            known = _find(record, candidate) or record.rejected(candidate)
            if known is None and not _hopeless(shape, record, limits):
                yield Evaluate(candidate, engine=False)
        there = [e for s in alive if (e := _find(record, Candidate(s, epochs, "fp32")))]
        count = math.ceil(len(there) * limits.keep) if rung + 1 < len(limits.rungs) else 0
        alive = [e.candidate.shape for e in _promising(there, record, limits)[:count]]


def _execute(record: Record, limits: Limits) -> Iterator[Action]:
    """Every trained shape, at the most epochs it has had, where it may add to the frontier."""
    done = [e.point for e in _executed(record)]
    for trained in _trained(record):
        for arithmetic in _useful(record):
            candidate = Candidate(trained.candidate.shape, trained.candidate.epochs, arithmetic)
            if _find(record, candidate, engine=True) or record.rejected(candidate):
                continue
            hoped = _predicted(trained, arithmetic, record)
            if hoped.drop_low <= limits.max_drop and not beaten_by(hoped, done):
                yield Evaluate(candidate, engine=True)


def _refine(record: Record, limits: Limits) -> Iterator[Action]:
    for family in limits.families:
        if not FAMILIES[family].strengths:
            continue
        known = sorted(
            (e for e in _trained(record) if e.candidate.shape.family == family),
            key=lambda e: e.candidate.shape,
        )
        good = [e.candidate.shape for e in known if e.drop <= limits.max_drop]
        edges = [Shape(family), *(e.candidate.shape for e in known), Shape(family, _STRONGEST)]
        last = max(good, default=Shape(family))
        for weaker, stronger in pairwise(edges):
            middle = between(weaker, stronger)
            if weaker != last or stronger.strength - weaker.strength < _CLOSE:
                continue
            yield from _unmeasured(middle, record)
            candidate = Candidate(middle, limits.rungs[-1], "fp32")
            pursued = not record.rejected(middle) and not _slow(middle, record)
            known = _find(record, candidate) or record.rejected(candidate)
            if pursued and known is None:
                yield Evaluate(candidate, engine=False)


def _promising(there: list[Evaluated], record: Record, limits: Limits) -> list[Evaluated]:
    """The fastest that may keep the drop, then what adds to the frontier, then the rest."""
    hoped = {e.candidate.shape: _predicted(e, _fastest(record), record) for e in there}

    def rank(e: Evaluated) -> tuple[bool, bool, float]:
        point = hoped[e.candidate.shape]
        feasible = point.drop * _HOPE <= limits.max_drop
        on_front = beaten_by(point, list(hoped.values())) is None
        return (not feasible, not on_front, point.objective if feasible else point.drop)

    return sorted(there, key=rank)


def _predicted(trained: Evaluated, arithmetic: str, record: Record) -> Point:
    """The candidate's point in `arithmetic`: its objective as measured untrained, or as far below
    float as the reference is; its drop with the reference's loss by that arithmetic added."""
    shape = trained.candidate.shape
    base, changed = reference(record), _find(record, Candidate(REFERENCE, 0, arithmetic), True)
    assert base is not None and changed is not None  # the first stage made both
    known = record.measured(shape, arithmetic)
    objective = known.objective if known else trained.objective * changed.objective / base.objective
    loss = max(0.0, changed.drop)
    return Point(
        Candidate(shape, trained.candidate.epochs, arithmetic).name,
        objective,
        known.spread if known else changed.spread,
        trained.drop + loss,
        trained.drop_low,  # the least that it may be: an arithmetic may lose nothing here
        trained.drop_high + loss,
    )


def _slow(shape: Shape, record: Record) -> str | None:
    """Why its cost rules a shape out; None where it does not."""
    float_base = reference(record)
    own = record.measured(shape, "fp32")
    if own is None or float_base is None:
        return None
    if own.objective > float_base.objective - max(own.spread, float_base.spread):
        return f"costs {own.objective:.3g}, the reference {float_base.objective:.3g}"
    for finding in record.findings:
        weaker = getattr(finding, "shape", None)
        if not isinstance(weaker, Shape) or weaker.family != shape.family:
            continue
        other = record.measured(weaker, "fp32")
        if weaker.strength < shape.strength and other and other.objective <= own.objective:
            more = f"{weaker}, which keeps more, {other.objective:.3g}"
            return f"costs {own.objective:.3g}, and {more}"
    return None


def _hopeless(shape: Shape, record: Record, limits: Limits) -> str | None:
    """Why a shape would lose too much by what a weaker one of its family lost; None where it may
    not. A search that finds nothing to serve in a family still knows where it begins to fail."""
    for e in record.evaluated():
        weaker = e.candidate.shape
        if weaker.family != shape.family or weaker.strength >= shape.strength:
            continue
        if e.drop_low * _HOPE > limits.max_drop:
            return (
                f"{weaker}, which keeps more, lost {100 * e.drop:.1f} points after "
                f"{e.candidate.epochs} epochs"
            )
    return None


def _useful(record: Record) -> list[str]:
    """The arithmetics that no other beats on the reference, by objective."""
    there = [e for e in _executed(record) if e.candidate.shape == REFERENCE]
    names = {point.name for point in front([e.point for e in there])}
    return [e.candidate.arithmetic for e in there if e.point.name in names]


def _fastest(record: Record) -> str:
    there = [e for e in _executed(record) if e.candidate.shape == REFERENCE]
    return min(there, key=lambda e: e.objective).candidate.arithmetic if there else "fp32"


def _executed(record: Record) -> list[Evaluated]:
    return [e for e in record.evaluated() if e.engine]


def _trained(record: Record) -> list[Evaluated]:
    """The float evaluation of every trained shape, at the most epochs it has had."""
    most: dict[Shape, Evaluated] = {}
    for e in record.evaluated():
        if e.engine:
            continue
        before = most.get(e.candidate.shape)
        if before is None or e.candidate.epochs > before.candidate.epochs:
            most[e.candidate.shape] = e
    return list(most.values())


def _find(record: Record, candidate: Candidate, engine: bool = False) -> Evaluated | None:
    return next(
        (e for e in record.evaluated() if e.candidate == candidate and e.engine == engine), None
    )


def _first_shapes(limits: Limits) -> list[Shape]:
    return [
        Shape(family, strength)
        for family in limits.families
        for strength in FAMILIES[family].strengths or (0.0,)
    ]


def _middle_first(shapes: Iterable[Shape]) -> list[Shape]:
    """Of each family the middle strength, then the weaker, then the stronger ones: what the middle
    one loses tells about both sides."""
    families: dict[str, list[Shape]] = {}
    for shape in shapes:
        families.setdefault(shape.family, []).append(shape)
    found: list[Shape] = []
    for group in families.values():
        middle = group[len(group) // 2]
        found += [middle, *(s for s in group if s != middle)]
    return sorted(found, key=lambda s: s != families[s.family][len(families[s.family]) // 2])


def _shapes(record: Record, limits: Limits) -> list[Shape]:
    seen = (getattr(finding, "shape", None) for finding in record.findings)
    return list(dict.fromkeys([s for s in seen if s is not None] + _first_shapes(limits)))


def _affordable(action: Action, record: Record, limits: Limits) -> bool:
    """Whether it fits the budget by what the like of it took. What was never done is tried."""
    left = limits.budget_s * (1 - _RESERVE) - record.seconds
    if left <= 0:
        return False
    if isinstance(action, Evaluate) and not action.engine:
        rates = [
            e.seconds / e.candidate.epochs
            for e in record.evaluated()
            if not e.engine and e.candidate.epochs
        ]
        return action.candidate.epochs * max(rates, default=0.0) <= left
    return True
