"""Every way a request can end without an answer, as one tree.

    GearshiftError
    ├── InvalidRequest       a constraint, tensor or body is malformed
    ├── TooLarge             the body or the header block is over the limit
    ├── UnknownModel
    ├── UnknownVariant
    ├── Unsatisfiable        constraints that no variant can meet
    ├── Unauthorized         no key, or one that nobody was given
    ├── Forbidden            the key may not do this
    ├── Overloaded           shed: would fit, but not under the present load
    │   ├── RateLimited      more requests than the key may send, in a second or at once
    │   └── BudgetSpent      the key's cost budget of the day is used up
    ├── NotReady             no healthy variant, or still starting, or draining
    ├── DeadlinePassed       while queued or running
    ├── EngineFailed         the engine raised or answered with something unusable
    └── CallerLeft           nobody is there to read the answer

`code` is stable and machine-readable; `retryable` says whether the same request may succeed later.
No protocol's numbers here: each protocol has its own table from these classes to its statuses.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from router.decision import Decision

# Of what a client sent: it may be nested deeper than Python's own `repr` follows, or be long.
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxdict = 3, 16, 16
_BRIEF.maxstring = _BRIEF.maxother = 200
shown = _BRIEF.repr
"""A value as Python writes it, briefly."""


class GearshiftError(Exception):
    """Base of the tree. `members` are what a client may want to read beside the message, and
    `decision` is the one that refused, where one did: for who looks on, not for the client."""

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False
    decision: Decision | None = None

    def __init__(self, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members: Mapping[str, object] = members


class InvalidRequest(GearshiftError):
    """Names the field, what came, and what was expected."""

    code = "invalid-request"
    title = "Invalid request"

    def __init__(self, field: str, received: object, expected: str) -> None:
        came: object = received
        if not isinstance(received, (int, float)):
            came = (shown(received) if isinstance(received, (list, dict)) else str(received))[:200]
        super().__init__(
            f"{field}: expected {expected}, got {came!r}",
            field=field,
            received=str(came),
            expected=expected,
        )

    @classmethod
    def saying(cls, field: str, detail: str) -> InvalidRequest:
        """One whose detail says all of it already."""
        error = cls.__new__(cls)
        GearshiftError.__init__(error, detail, field=field)
        return error


class TooLarge(GearshiftError):
    code = "too-large"
    title = "Request too large"


class UnknownModel(GearshiftError):
    code = "unknown-model"
    title = "Unknown model"


class UnknownVariant(GearshiftError):
    code = "unknown-variant"
    title = "Unknown variant"


class Unsatisfiable(GearshiftError):
    code = "unsatisfiable"
    title = "No variant can meet these constraints"


class Overloaded(GearshiftError):
    """`retry_after_s` is when the same request is expected to fit."""

    code = "overloaded"
    title = "Not under the present load"
    retryable = True

    def __init__(self, detail: str, retry_after_s: float, **members: object) -> None:
        super().__init__(detail, **members)
        self.retry_after_s = retry_after_s


class RateLimited(Overloaded):
    code = "rate-limited"
    title = "Too many requests for this key"


class BudgetSpent(Overloaded):
    code = "budget-spent"
    title = "The budget of this key is spent"


class Unauthorized(GearshiftError):
    code = "unauthorized"
    title = "A key is needed"


class Forbidden(GearshiftError):
    code = "forbidden"
    title = "This key may not do this"


class NotReady(GearshiftError):
    """`retry_after_s` is when the same request may be answered, where that is known."""

    code = "not-ready"
    title = "Not ready"
    retryable = True

    def __init__(self, detail: str, retry_after_s: float | None = None, **members: object) -> None:
        super().__init__(detail, **members)
        self.retry_after_s = retry_after_s


class DeadlinePassed(GearshiftError):
    code = "deadline-passed"
    title = "Deadline passed"


class EngineFailed(GearshiftError):
    """`variant` is the one whose engine failed, where that is known."""

    code = "engine-failed"
    title = "The engine failed"

    def __init__(self, detail: str, variant: str = "", **members: object) -> None:
        super().__init__(detail, **members)
        self.variant = variant


class CallerLeft(GearshiftError):
    code = "caller-left"
    title = "The caller left"
