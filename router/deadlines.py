"""What became of a request's deadline: one rule, for metrics and for the console.

    kept       answered in time
    relaxed    answered late, as its caller allowed
    missed     it passed before there was an answer, or as good as that when its caller left
    shed       refused, for it would not have been kept under the present load
    broken     it ended in an error of the server's own

A request without a deadline, of its own or by the operator's default, is none of these.
"""

from __future__ import annotations

from typing import Literal

from router.constraints import Constraints, or_default
from router.errors import (
    CallerLeft,
    DeadlinePassed,
    EngineFailed,
    GearshiftError,
    NotReady,
    Overloaded,
)

Outcome = Literal["kept", "missed", "relaxed", "shed", "broken"]
OUTCOMES: tuple[Outcome, ...] = ("kept", "missed", "relaxed", "shed", "broken")

OWN_ERRORS = (EngineFailed.code, GearshiftError.code, NotReady.code)
"""The codes of what is nobody's doing but the server's."""

# A caller whose patience is its deadline began to wait before the request's last byte was here.
_NEARLY = 0.9


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


def of_failure(
    error: GearshiftError, limit_ms: float | None, total_s: float
) -> Literal["missed", "shed", "broken"] | None:
    """What became of a deadline by this error; None where the error says nothing of it.

    A key's own limits, which are kinds of `Overloaded`, shed nothing; and who left long before the
    deadline was not let down.

    Args:
        total_s: from the request's last byte to its end.
    """
    if isinstance(error, DeadlinePassed):
        return "missed"
    if limit_ms is None:
        return None
    if type(error) is Overloaded:
        return "shed"
    if isinstance(error, CallerLeft):
        return "missed" if total_s * 1000 >= _NEARLY * limit_ms else None
    return "broken" if error.code in OWN_ERRORS else None
