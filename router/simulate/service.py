"""Service times: how long a batch takes, drawn from what a card measured.

A card holds percentiles and not runs, so the distribution is made of what there is: the inverse
distribution function is drawn with straight lines through p50, p95 and p99. Below, half of the
runs lie between p50 − spread, but no less than half of p50, and p50; above, the last hundredth goes
on as steeply, in ms, as the four before it: to p99 + (p99 − p95). Between batch sizes each of these
points is interpolated by rows, as the menu interpolates its percentiles. A table that states one
time for a batch therefore is exact.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist
from typing import NamedTuple

from router.card import LatencyPoint
from router.errors import GearshiftError
from router.menu import interpolated
from router.simulate.bound import least_ms

_LOGNORMAL = re.compile(r"lognormal:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)", re.ASCII)
_MOST_SIGMA = 2.0

# Of the cards' five points, and of a lognormal: denser where it bends.
_CARD_QS = (0.0, 0.5, 0.95, 0.99, 1.0)
_LOGNORMAL_QS = (
    0.0001, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98,
    0.99, 0.995, 0.999, 0.9999,
)  # fmt: skip


class BadNoise(GearshiftError):
    """A kind of noise that there is not."""

    code = "bad-noise"
    title = "Invalid noise"


class Noise(NamedTuple):
    """How service times scatter: `measured` as cards say, `none`, or `lognormal` by `sigma`."""

    kind: str = "measured"
    sigma: float = 0.0


def noise(text: str) -> Noise:
    """`measured`, `none`, or `lognormal:0.1`: the median as measured, its logarithm's deviation.

    Raises:
        BadNoise: anything else.
    """
    stripped = text.strip().lower()
    if stripped in ("measured", "none"):
        return Noise(stripped)
    match = _LOGNORMAL.fullmatch(stripped)
    if match is None or not 0 < float(match[1]) <= _MOST_SIGMA:
        expected = f"measured, none, or lognormal:SIGMA with SIGMA above 0, at most {_MOST_SIGMA:g}"
        raise BadNoise(f"noise: expected {expected}, got {text!r}", field="noise", received=text)
    return Noise("lognormal", float(match[1]))


@dataclass(frozen=True, slots=True)
class Service:
    """One variant's service times.

    Attributes:
        qs: probabilities, from 0 to 1.
        ms: `ms[i][rows]`: a batch of `rows` rows takes that long or less with probability `qs[i]`.
    """

    qs: tuple[float, ...]
    ms: tuple[tuple[float, ...], ...]

    @property
    def max_batch(self) -> int:
        """Rows of the largest batch; more run in several."""
        return len(self.ms[0]) - 1

    def draw_ms(self, rows: int, rng: Random) -> float:
        """Time of one batch."""
        full, rest = divmod(rows, self.max_batch)
        if full and rows > self.max_batch:
            took = math.fsum(self._draw_ms(self.max_batch, rng) for _ in range(full))
            return took + (self._draw_ms(rest, rng) if rest else 0.0)
        return self._draw_ms(rows, rng)

    def _draw_ms(self, rows: int, rng: Random) -> float:
        if len(self.qs) == 1:
            return self.ms[0][rows]
        drawn = rng.random()
        at = bisect_right(self.qs, drawn)
        low_q, high_q = self.qs[at - 1], self.qs[at]
        low, high = self.ms[at - 1][rows], self.ms[at][rows]
        return low + (high - low) * (drawn - low_q) / (high_q - low_q)

    def shortest_ms(self, rows: int) -> float:
        """The least that `rows` rows can take, alone or with others."""
        table = self.ms[0]
        full, rest = divmod(rows, self.max_batch)
        if rest == 0:
            return full * table[-1]
        return full * table[-1] + table[rest]

    def work_ms(self) -> float:
        """The least lane time of a row, in the best batch: see `bound.Class.work_ms`."""
        return min(self._least_ms(rows) / rows for rows in range(1, self.max_batch + 1))

    def _least_ms(self, rows: int) -> float:
        if len(self.qs) == 1:
            return self.ms[0][rows]
        return least_ms([(q, table[rows]) for q, table in zip(self.qs, self.ms, strict=True)])


def service(latency: Sequence[LatencyPoint], noise: Noise, max_batch: int) -> Service:
    """The service times that `latency` measured, of batches of `max_batch` rows at most."""
    if noise.kind == "measured" and any(
        point.spread_ms or point.p99_ms > point.p50_ms for point in latency
    ):
        columns = zip(*map(_five, latency), strict=True)
        batches = [point.batch for point in latency]
        tables = [interpolated(list(zip(batches, column, strict=True))) for column in columns]
        return Service(_CARD_QS, tuple(table[: max_batch + 1] for table in tables))
    median = interpolated([(point.batch, point.p50_ms) for point in latency])[: max_batch + 1]
    if noise.kind != "lognormal":
        return Service((0.0,), (median,))
    steps = [NormalDist().inv_cdf(q) for q in _LOGNORMAL_QS]
    factors = [math.exp(noise.sigma * step) for step in steps]
    # Cut off at one in ten thousand to either side: a piece of straight line needs two ends.
    qs = (0.0, *_LOGNORMAL_QS[1:-1], 1.0)
    return Service(qs, tuple(tuple(ms * factor for ms in median) for factor in factors))


def noisy(latency: Sequence[LatencyPoint], noise: Noise) -> tuple[LatencyPoint, ...]:
    """What a card would say of `latency` under `noise`: what the scheduler may know of it."""
    if noise.kind == "measured":
        return tuple(latency)
    p95, p99 = (math.exp(noise.sigma * NormalDist().inv_cdf(q)) for q in (0.95, 0.99))
    return tuple(
        point.model_copy(
            update={
                "p95_ms": point.p50_ms * p95,
                "p99_ms": point.p50_ms * p99,
                "spread_ms": 0.0,
            }
        )
        for point in latency
    )


def drawer(
    services: Mapping[tuple[str, str], Service],
) -> Callable[[str, str, int, Random], float]:
    """What `replay.Machine.draw_ms` asks for."""

    def draw_ms(model: str, variant: str, rows: int, rng: Random) -> float:
        return services[model, variant].draw_ms(rows, rng)

    return draw_ms


def _five(point: LatencyPoint) -> tuple[float, ...]:
    least = max(point.p50_ms - point.spread_ms, point.p50_ms / 2)
    most = point.p99_ms + (point.p99_ms - point.p95_ms)
    return least, point.p50_ms, point.p95_ms, point.p99_ms, most
