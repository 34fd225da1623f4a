"""What a record says: what was found, what may be hoped for, and why things are left alone. Pure.

`gain` is the measure of all hopes: what a point would add to the hypervolume, of the rectangle from
nothing to the reference's objective and the drop allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from compressors.search.frontier import Point, beaten_by, front, hypervolume
from compressors.search.record import Evaluated, Measured, Record, Rejected
from compressors.search.space import FAMILIES, REFERENCE, Candidate, Shape

WORTH = 0.005  # of the hypervolume's rectangle: what adds less is not worth a trial
_MARGIN = 0.3
"""By how much more a shape must lose untrained than one that costs no more, to be left alone.
Untrained networks look worse than they are: on 8x8 digits, 24 of 32 channels lost 86 points and 6
after 8 epochs, so that no loss alone rules a shape out."""


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
        build_s: seconds that building one recipe takes besides what executing it took: all batch
            sizes timed, its memory seen in a process of its own, and the score on test.
    """

    max_drop: float
    budget_s: float
    families: tuple[str, ...]
    arithmetics: tuple[str, ...]
    rungs: tuple[int, ...] = (1, 8)
    keep: float = 1 / 3
    build_s: float = 8.0


def frontier(record: Record, limits: Limits) -> list[Evaluated]:
    """What is worth serving, by objective: executed, within the allowed drop, beaten by none."""
    best = {e.point.name: e for e in executed(record)}
    there = [e for e in best.values() if e.drop <= limits.max_drop]
    names = {point.name for point in front([e.point for e in there])}
    return sorted((e for e in there if e.point.name in names), key=lambda e: e.objective)


def rejections(record: Record, limits: Limits) -> Iterator[tuple[str, str]]:
    """(what, why) for everything that was looked at and is not in the frontier."""
    kept = {e.candidate for e in frontier(record, limits)}
    by_family: dict[str, list[Rejected]] = {}
    for finding in record.findings:
        if not isinstance(finding, Rejected):
            continue
        what = finding.what
        if isinstance(what, Shape):
            by_family.setdefault(what.family, []).append(finding)
        else:
            yield what.name if isinstance(what, Candidate) else what, finding.reason
    for family, found in by_family.items():
        if all(refused(shape, record) for shape in first_shapes([family])):  # one line
            yield family, found[0].reason
        else:
            yield from ((str(each.what), each.reason) for each in found)
    for shape in shapes(record, limits):
        if reason := pointless(shape, record) or hopeless(shape, record, limits):
            yield str(shape), reason
        elif refused(shape, record) or trained_for(shape, record):
            continue
        elif reason := adds_nothing(shape, record, limits):
            yield str(shape), reason
    for evaluated in {e.point.name: e for e in executed(record)}.values():
        if evaluated.candidate in kept:
            continue
        if evaluated.drop > limits.max_drop:
            yield (
                evaluated.candidate.name,
                f"loses {100 * evaluated.drop:.2f} points, {100 * limits.max_drop:g} are allowed",
            )
        elif better := beaten_by(evaluated.point, [e.point for e in executed(record)]):
            yield evaluated.candidate.name, f"{better.name} is not worse in either and beats it"


def reference(record: Record) -> Evaluated | None:
    """The reference in fp32: what drops are from and speed-ups against."""
    return find(record, Candidate(REFERENCE, 0, "fp32"), engine=True)


def hope(trained: Evaluated, limits: Limits) -> float:
    """The share of a drop that at best remains after all epochs: it falls no faster than the epochs
    rise. Seen from 1 epoch to 8: 0.14, 0.29 and 0.42 (digits of 8x8), 0.38 (of 24x24); from 3 to 8:
    0.45 and 0.65."""
    return trained.candidate.epochs / limits.rungs[-1]


def predicted(trained: Evaluated, arithmetic: str, record: Record) -> Point:
    """The candidate's point in `arithmetic`: its objective as measured untrained, or as far below
    float as the reference is; its drop as in float, with the interval as wide as the reference's
    loss by that arithmetic allows: one arithmetic may cost nothing here that costs there."""
    shape = trained.candidate.shape
    base, changed = reference(record), find(record, Candidate(REFERENCE, 0, arithmetic), True)
    assert base is not None and changed is not None  # the first stage made both
    known = record.measured(shape, arithmetic)
    objective = known.objective if known else trained.objective * changed.objective / base.objective
    loss = max(0.0, changed.drop)
    return Point(
        Candidate(shape, trained.candidate.epochs, arithmetic).name,
        objective,
        known.spread if known else changed.spread,
        trained.drop,
        trained.drop_low,
        trained.drop_high + loss,
    )


def hoped(trained: Evaluated, record: Record, limits: Limits) -> Point:
    """The point after all epochs, at the best, in the arithmetic that suits the shape best."""
    point = predicted(trained, suited(trained.candidate.shape, record), record)
    return replace(point, drop=max(0.0, point.drop) * hope(trained, limits))


def expected(trained: Evaluated, record: Record, limits: Limits) -> Point:
    """The point after all epochs, as it usually turns out: the drop falls with the root."""
    point = predicted(trained, suited(trained.candidate.shape, record), record)
    return replace(point, drop=max(0.0, point.drop) * hope(trained, limits) ** 0.5)


def gain(point: Point, there: Sequence[Point], record: Record, limits: Limits) -> float:
    """What `point` adds to the hypervolume of `there`, of the rectangle from nothing to the
    reference's objective and the drop allowed."""
    base = reference(record)
    assert base is not None  # the first finding
    # A drop of exactly what is allowed, and of nothing where nothing is, is worth something.
    worst = limits.max_drop * 1.01 + 1e-6
    both = hypervolume([*there, point], base.objective, worst)
    return both - hypervolume(there, base.objective, worst)


def pointless(shape: Shape, record: Record) -> str | None:
    """Why what is known of a shape untrained rules it out; None where it does not."""
    float_base = reference(record)
    own = record.measured(shape, "fp32")
    if own is None or float_base is None:
        return None
    if own.objective > float_base.objective - max(own.spread, float_base.spread):
        return f"costs {own.objective:.3g}, the reference {float_base.objective:.3g}"
    measured = measured_shapes(record)
    for other_shape in measured:
        other = record.measured(other_shape, "fp32")
        if other is None or other_shape.family != shape.family or other_shape == shape:
            continue
        before = measured.index(other_shape) < measured.index(shape)
        if before and other.parameters == own.parameters:
            return f"the same network as {other_shape}: {own.parameters:,} parameters"
        weaker = other_shape < shape and other.parameters != own.parameters
        if weaker and other.objective <= own.objective:
            return (
                f"costs {own.objective:.3g}, and {other_shape}, which keeps more, "
                f"{other.objective:.3g}"
            )
    return _worse_untrained(shape, own, record)


def _worse_untrained(shape: Shape, own: Measured, record: Record) -> str | None:
    for other_shape in measured_shapes(record):
        other = record.measured(other_shape, "fp32")
        if other is None or other.drop is None or own.drop is None or other_shape == shape:
            continue
        if other.objective <= own.objective and own.drop - other.drop > _MARGIN:
            return (
                f"costs no less than {other_shape} and loses {100 * own.drop:.0f} points "
                f"untrained, that one {100 * other.drop:.0f}"
            )
    return None


def refused(shape: Shape, record: Record) -> Rejected | None:
    """Why nothing can be done to a shape: what is true of it, or of a stronger one of its family.
    Where much cannot go, less cannot."""
    return next(
        (
            f
            for f in record.findings
            if isinstance(f, Rejected)
            and isinstance(f.what, Shape)
            and f.what.family == shape.family
            and f.what.strength >= shape.strength
        ),
        None,
    )


def hopeless(shape: Shape, record: Record, limits: Limits) -> str | None:
    """Why a shape would lose too much by what a weaker one of its family lost; None where it may
    not. A search that finds nothing to serve in a family still knows where it begins to fail."""
    for e in record.evaluated():
        weaker = e.candidate.shape
        if weaker.family != shape.family or weaker.strength >= shape.strength:
            continue
        if e.candidate.epochs and e.drop_low * hope(e, limits) > limits.max_drop:
            return (
                f"{weaker}, which keeps more, lost {100 * e.drop:.1f} points after "
                f"{e.candidate.epochs} epochs"
            )
    return None


def adds_nothing(shape: Shape, record: Record, limits: Limits) -> str | None:
    """Why a shape is not worth training even if it lost no more than weaker ones of its family;
    None where it may be. One that was not measured costs at least what a stronger one does."""
    arithmetic = suited(shape, record)
    seen = record.measured(shape, arithmetic)
    if seen is None:
        stronger = [s for s in measured_shapes(record) if s.family == shape.family and s > shape]
        costs = [m for s in stronger if (m := record.measured(s, arithmetic))]
        seen = max(costs, key=lambda m: m.objective, default=None)
    if reference(record) is None or seen is None:
        return None
    there = [e.point for e in executed(record)]
    there += [hoped(e, record, limits) for e in trained(record)]
    weaker = [
        hoped(e, record, limits).drop
        for e in trained(record)
        if e.candidate.shape.family == shape.family and e.candidate.shape < shape
    ]
    least = max(weaker, default=0.0)
    point = Point(str(shape), seen.objective, seen.spread, least, least, least)
    if gain(point, there, record, limits) > WORTH:
        return None
    costs_it = f"costs {seen.objective:.3g} in {arithmetic}, and"
    if least > limits.max_drop:
        return f"{costs_it} weaker ones of its family lose too much already"
    return f"{costs_it} would add next to nothing to what is there or in sight"


def useful(record: Record) -> list[str]:
    """The arithmetics that no other beats on the reference, by objective."""
    there = [e for e in executed(record) if e.candidate.shape == REFERENCE]
    names = {point.name for point in front([e.point for e in there])}
    return [e.candidate.arithmetic for e in there if e.point.name in names]


def fastest(record: Record) -> str:
    there = [e for e in executed(record) if e.candidate.shape == REFERENCE]
    return min(there, key=lambda e: e.objective).candidate.arithmetic if there else "fp32"


def suited(shape: Shape, record: Record) -> str:
    """The arithmetic that the shape costs least in: the reference's fastest, or float, where the
    little that is left is not worth converting to and from integers."""
    best, plain = record.measured(shape, fastest(record)), record.measured(shape, "fp32")
    if best and plain and plain.objective < best.objective:
        return "fp32"
    return fastest(record)


def executed(record: Record) -> list[Evaluated]:
    return [e for e in record.evaluated() if e.engine]


def trained(record: Record) -> list[Evaluated]:
    """The float evaluation of every trained shape, at the most epochs it has had."""
    most: dict[Shape, Evaluated] = {}
    for e in record.evaluated():
        if e.engine:
            continue
        before = most.get(e.candidate.shape)
        if before is None or e.candidate.epochs > before.candidate.epochs:
            most[e.candidate.shape] = e
    return list(most.values())


def find(record: Record, candidate: Candidate, engine: bool = False) -> Evaluated | None:
    return next(
        (e for e in record.evaluated() if e.candidate == candidate and e.engine == engine), None
    )


def measured_shapes(record: Record) -> list[Shape]:
    return [f.shape for f in record.findings if isinstance(f, Measured) and f.arithmetic == "fp32"]


def shapes(record: Record, limits: Limits) -> list[Shape]:
    return list(dict.fromkeys(first_shapes(limits.families) + measured_shapes(record)))


def trained_for(shape: Shape, record: Record) -> Evaluated | None:
    return next((e for e in trained(record) if e.candidate.shape == shape), None)


def first_shapes(families: Sequence[str]) -> list[Shape]:
    return [
        Shape(family, strength)
        for family in families
        for strength in FAMILIES[family].strengths or (0.0,)
    ]
