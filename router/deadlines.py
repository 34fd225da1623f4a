"""What became of a request's deadline: one rule, for metrics and for the console.

    kept       answered in time
    relaxed    answered late, as its caller allowed
    missed     it passed before there was an answer
    shed       refused, for it would not have been kept under the present load

A request without a deadline, of its own or by the operator's default, is none of these.
"""

from __future__ import annotations

from typing import Literal

from router.constraints import Constraints, or_default
from router.errors import DeadlinePassed, GearshiftError, Overloaded

Outcome = Literal["kept", "missed", "relaxed", "shed"]
OUTCOMES: tuple[Outcome, ...] = ("kept", "missed", "relaxed", "shed")


def limit_ms(constraints: Constraints | None, default: Constraints) -> float | None:
    """The deadline of a request that states these, where `default` holds for who demands nothing.

    None where it has none, and where nothing is known of what it states.
    """
    if constraints is None or constraints.max_latency_ms is not None:
        return None if constraints is None else constraints.max_latency_ms
    if default.max_latency_ms is None:
        return None
    return or_default(constraints, default).max_latency_ms


def of_answer(total_s: float, limit_ms: float) -> Literal["kept", "relaxed"]:
    """What became of a deadline of `limit_ms` by an answer `total_s` after its last byte."""
    return "kept" if total_s * 1000 <= limit_ms else "relaxed"


def of_failure(error: GearshiftError, limit_ms: float | None) -> Literal["missed", "shed"] | None:
    """What became of a deadline by this error; None where the error says nothing of it.

    A key's own limits, which are kinds of `Overloaded`, shed nothing.
    """
    if isinstance(error, DeadlinePassed):
        return "missed"
    if type(error) is Overloaded and limit_ms is not None:
        return "shed"
    return None
