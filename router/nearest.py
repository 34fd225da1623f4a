"""The nearest values that would fit, when nothing does: what a 422 tells its caller.

Every value is rounded outward, so that the same request with the value put in is accepted at the
same moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from router.constraints import Constraints, Floor, floor
from router.decision import Constraint, Nearest
from router.feasible import CONSTRAINTS, Option, broken, meets, offered_floor

# Four significant digits say enough and are short to type.
_UPWARD = Context(prec=4, rounding=ROUND_CEILING)
# Below this no price and no clock tells two values apart.
_LEAST = Decimal("1e-12")
_FLOOR_STEP = Decimal("0.0001")
_PERCENT_STEP = Decimal("0.01")


def nearest(options: Sequence[Option], constraints: Constraints) -> Nearest:
    """The nearest values by constraint; empty when there is no option at all.

    Each value of `alone` suffices when that constraint alone is changed. When there is no such
    constraint, `together` holds the values of the option that misses by the least in all.
    """
    asked = [name for name in CONSTRAINTS if getattr(constraints, name) is not None]
    alone = []
    for name in asked:
        without = replace(constraints, **{name: None})  # type: ignore[arg-type]
        fitting = [option for option in options if meets(option, without)]
        if fitting:
            alone.append((name, _value(_closest(fitting, name, constraints), name, constraints)))
    if alone or not options:
        return Nearest(alone=tuple(alone))
    least = min(options, key=lambda option: (miss(option, constraints), option.offer.name))
    together = [(name, _value(least, name, constraints)) for name in broken(least, constraints)]
    return Nearest(together=tuple(together))


def miss(option: Option, constraints: Constraints) -> float:
    """By how much `option` misses in all: the shares of each limit by which it breaks it, added."""
    total = 0.0
    limit = constraints.max_latency_ms
    if limit is not None:
        total += max(0.0, option.latency_ms / limit - 1)
    cap = constraints.max_cost_usd_per_million
    if cap is not None and option.cost_usd_per_million > cap:
        total += option.cost_usd_per_million / cap - 1 if cap > 0 else math.inf
    least = constraints.min_accuracy
    if least is not None:
        total += max(0.0, least.value - offered_floor(option.offer, least).value)
    return total


def _closest(options: Sequence[Option], name: Constraint, constraints: Constraints) -> Option:
    if name == "max_latency_ms":
        return min(options, key=lambda option: option.latency_ms)
    if name == "max_cost_usd_per_million":
        return min(options, key=lambda option: option.cost_usd_per_million)
    least = constraints.min_accuracy
    assert least is not None
    return max(options, key=lambda option: offered_floor(option.offer, least).value)


def _value(option: Option, name: Constraint, constraints: Constraints) -> str:
    if name == "max_latency_ms":
        return _upward(option.latency_ms)
    if name == "max_cost_usd_per_million":
        return _upward(option.cost_usd_per_million)
    least = constraints.min_accuracy
    assert least is not None
    return _floor_text(offered_floor(option.offer, least))


def _upward(number: float) -> str:
    rounded = _UPWARD.create_decimal_from_float(number)
    if rounded and rounded < _LEAST:
        rounded = _LEAST
    return format(rounded, "f")


def _floor_text(offered: Floor) -> str:
    value = Decimal(max(offered.value, 0.0))
    step = _FLOOR_STEP
    if offered.relative:
        value, step = min(value, Decimal(1)) * 100, _PERCENT_STEP
    value = value.quantize(step, rounding=ROUND_FLOOR)
    suffix = "%" if offered.relative else ""
    # A percentage is divided when it is read back, which may round up by one unit in the last
    # place; one step lower is then the nearest that surely fits.
    if floor("min_accuracy", f"{value}{suffix}").value > max(offered.value, 0.0):
        value -= step
    return f"{value}{suffix}"
