"""The frontier: recipes that no other beats in both the objective and the metric. Pure.

Hypervolume: Zitzler & Thiele 1999, "Multiobjective Evolutionary Algorithms", IEEE TEC 3(4). Here
the area, in the plane of objective and drop, that a set of points beats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One evaluated recipe.

    Attributes:
        name: of the recipe.
        objective: what is to be small: milliseconds, USD or bytes.
        spread: of the objective: two that differ by less do not differ. 0 for bytes.
        drop: the reference's metric minus this one's, on the same samples.
        drop_low, drop_high: its 95 % interval.
    """

    name: str
    objective: float
    spread: float
    drop: float
    drop_low: float
    drop_high: float


def dominates(a: Point, b: Point) -> bool:
    """Whether `a` beats `b` beyond doubt: better in one of the two by more than measurement can
    explain, and not worse in the other.

    The metric is better beyond doubt where the intervals of the two drops do not meet.
    """
    if a.objective > b.objective or a.drop > b.drop:
        return False
    faster = b.objective - a.objective > max(a.spread, b.spread)
    return faster or a.drop_high < b.drop_low


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other dominates, by objective."""
    kept = [p for p in points if not any(dominates(q, p) for q in points if q is not p)]
    return sorted(kept, key=lambda point: (point.objective, point.drop))


def beaten_by(point: Point, points: Sequence[Point]) -> Point | None:
    """The one with the least drop of those that dominate `point`."""
    better = [q for q in points if q is not point and dominates(q, point)]
    return min(better, key=lambda q: q.drop, default=None)


def hypervolume(points: Sequence[Point], worst_objective: float, worst_drop: float) -> float:
    """The share, 0 to 1, of the rectangle from (0, 0) to (`worst_objective`, `worst_drop`) that
    `points` beat. A drop below 0 counts as 0.

    Raises:
        ValueError: a side of the rectangle is not positive.
    """
    if worst_objective <= 0 or worst_drop <= 0:
        raise ValueError(
            f"expected a rectangle with positive sides, got {worst_objective} by {worst_drop}"
        )
    area, left_drop = 0.0, worst_drop
    # From the fastest on, each point adds the strip of drops that none before it reached.
    for point in sorted(points, key=lambda p: (p.objective, p.drop)):
        drop = max(0.0, point.drop)
        if point.objective < worst_objective and drop < left_drop:
            area += (worst_objective - point.objective) * (left_drop - drop)
            left_drop = drop
    return area / (worst_objective * worst_drop)
