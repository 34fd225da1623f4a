"""Synthetic arrivals: processes named by a spec, `name` or `name:key=value,key=value`.

    poisson                       independent, exponential gaps
    gamma:cv=4                    independent gaps of that coefficient of variation
    diurnal:depth=0.8,cycles=2    the rate swings like a cosine, from the trough on, by `depth` of
                                  the mean to either side, `cycles` times
    spike:height=4,share=0.1      the rate is `height` times as high for a `share` of the time, in
                                  the middle
    map:ratio=8,share=0.25,dwell=100
                                  the rate is `ratio` times as high in a busy state, at random: for
                                  a `share` of the time, and for as long as `dwell` requests take
                                  at the mean rate, on average, before it ends

Whatever the process, its mean rate is the one asked for. Patterns are over the time that the
requests take at that rate, so that a spec means the same at every rate and for any number; when
fewer came than expected, the pattern starts again.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from router.simulate.trace import BadTrace
from router.simulate.trace.window import demand

_NUMBER = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


class Process(Protocol):
    """Arrivals at a mean rate; what `parse` makes of a spec."""

    def __call__(self, *, rate_per_s: float, requests: int, rng: random.Random) -> list[float]:
        """`requests` arrivals from 0 on, in s, non-decreasing.

        Raises:
            BadTrace: the rate or the number of requests is out of its domain.
        """


@dataclass(frozen=True, slots=True)
class Key:
    """One setting of a process: its default, and the least and the most it may be."""

    default: float
    least: float
    most: float
    whole: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.least:g} to {self.most:g}"


def parse(spec: str) -> Process:
    """The process that `spec` names.

    Raises:
        BadTrace: there is none of that name, or a key is unknown, said twice, without a value, or
            out of its domain. The message names it and says what is allowed.
    """
    name, colon, rest = spec.strip().partition(":")
    name = name.strip()
    if name not in _PROCESSES:
        raise _bad(spec, "process", name, "one of " + ", ".join(_PROCESSES))
    keys, draw = _PROCESSES[name]
    values = {key: setting.default for key, setting in keys.items()}
    said: set[str] = set()
    for part in rest.split(",") if colon else ():
        key, _, text = (piece.strip() for piece in part.partition("="))
        if key not in keys:
            allowed = "one of " + ", ".join(keys) if keys else "no keys"
            raise _bad(spec, f"{name} key", key, allowed)
        if key in said:
            raise _bad(spec, key, text, f"{key} once")
        said.add(key)
        values[key] = _value(spec, key, text, keys[key])

    def process(*, rate_per_s: float, requests: int, rng: random.Random) -> list[float]:
        demand(spec, rate_per_s, requests)
        return draw(values, rate_per_s, requests, rng)

    return process


def arrivals(spec: str, *, rate_per_s: float, requests: int, rng: random.Random) -> list[float]:
    """`requests` arrivals of the process that `spec` names, in s, non-decreasing, from 0 on.

    Args:
        rate_per_s: mean rate, requests per s.

    Raises:
        BadTrace: as `parse`, or the rate or the number of requests is out of its domain.
    """
    return parse(spec)(rate_per_s=rate_per_s, requests=requests, rng=rng)


def _value(spec: str, key: str, text: str, setting: Key) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    inside = setting.least <= value <= setting.most
    if not inside or (setting.whole and value != int(value)):
        raise _bad(spec, key, text, str(setting))
    return value


def _bad(spec: str, field: str, received: str, expected: str) -> BadTrace:
    return BadTrace(
        f"arrivals {spec!r}: {field}: expected {expected}, got {received!r}",
        trace=spec,
        field=field,
        received=received,
        expected=expected,
    )


def _poisson(
    _: Mapping[str, float], rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    return _renewal(lambda: rng.expovariate(rate_per_s), requests)


def _gamma(
    values: Mapping[str, float], rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    # A Gamma distribution of shape k and scale s has mean k s and variance k s².
    shape = 1.0 / values["cv"] ** 2
    scale_s = 1.0 / (rate_per_s * shape)
    return _renewal(lambda: rng.gammavariate(shape, scale_s), requests)


def _renewal(gap_s: Callable[[], float], requests: int) -> list[float]:
    found = []
    now = 0.0
    for _ in range(requests):
        now += gap_s()
        found.append(now)
    return found


def _diurnal(
    values: Mapping[str, float], rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    depth, turns = values["depth"], 2.0 * math.pi * values["cycles"]

    def relative(at: float) -> float:
        return 1.0 - depth * math.cos(turns * at)

    return _thinned(relative, 1.0 + depth, rate_per_s, requests, rng)


def _spike(
    values: Mapping[str, float], rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    height, share = values["height"], values["share"]
    base = 1.0 / (1.0 - share + share * height)
    first, end = 0.5 - share / 2.0, 0.5 + share / 2.0

    def relative(at: float) -> float:
        return base * height if first <= at < end else base

    return _thinned(relative, base * height, rate_per_s, requests, rng)


def _thinned(
    relative: Callable[[float], float],
    peak: float,
    rate_per_s: float,
    requests: int,
    rng: random.Random,
) -> list[float]:
    """A Poisson process whose rate changes, by thinning (Lewis and Shedler 1979).

    Args:
        relative: the rate, relative to the mean, by the share of the pattern that has passed; its
            mean over [0, 1) is 1.
        peak: the most that `relative` comes to.
    """
    length_s = requests / rate_per_s
    found: list[float] = []
    now = 0.0
    while len(found) < requests:
        now += rng.expovariate(rate_per_s * peak)
        if rng.random() * peak < relative(now / length_s % 1.0):
            found.append(now)
    return found


def _map(
    values: Mapping[str, float], rate_per_s: float, requests: int, rng: random.Random
) -> list[float]:
    """A Markovian arrival process: the Markov-modulated Poisson process of two states (Fischer and
    Meier-Hellstern 1993, The MMPP cookbook), its interval-stationary version."""
    ratio, share = values["ratio"], values["share"]
    quiet_per_s = rate_per_s / (1.0 - share + share * ratio)
    rates_per_s = (quiet_per_s, quiet_per_s * ratio)
    busy_s = values["dwell"] / rate_per_s
    dwells_s = (busy_s * (1.0 - share) / share, busy_s)
    # Begun as an arrival finds it, not as a clock does: only so do n requests take n mean gaps.
    state = int(rng.random() < share * rates_per_s[1] / rate_per_s)
    found: list[float] = []
    now, until = 0.0, rng.expovariate(1.0 / dwells_s[state])
    while len(found) < requests:
        now += rng.expovariate(rates_per_s[state])
        if now < until:
            found.append(now)
            continue
        # What would have come after the state ended never comes: no memory, so draw afresh.
        now, state = until, 1 - state
        until += rng.expovariate(1.0 / dwells_s[state])
    return found


_Draw = Callable[[Mapping[str, float], float, int, random.Random], list[float]]

# Bounds keep thinning and gammavariate from running away: at worst 1 candidate in 100 is kept.
_PROCESSES: Mapping[str, tuple[Mapping[str, Key], _Draw]] = {
    "poisson": ({}, _poisson),
    "gamma": ({"cv": Key(4.0, 0.01, 20.0)}, _gamma),
    "diurnal": ({"depth": Key(0.8, 0.0, 1.0), "cycles": Key(2.0, 1.0, 1000.0, True)}, _diurnal),
    "spike": ({"height": Key(4.0, 1.0, 100.0), "share": Key(0.1, 0.001, 0.999)}, _spike),
    "map": (
        {
            "ratio": Key(8.0, 1.0, 1000.0),
            "share": Key(0.25, 0.001, 0.999),
            "dwell": Key(100.0, 1.0, 1e6),
        },
        _map,
    ),
}
