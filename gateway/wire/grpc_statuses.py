"""Errors as gRPC's status codes, by name: for what serves gRPC, and for what only speaks of it."""

from __future__ import annotations

from router.errors import (
    BudgetSpent,
    CallerLeft,
    DeadlinePassed,
    EngineFailed,
    Forbidden,
    GearshiftError,
    InvalidRequest,
    NotReady,
    Overloaded,
    RateLimited,
    TooLarge,
    Unauthorized,
    UnknownModel,
    UnknownVariant,
    Unsatisfiable,
)

OK = "OK"

# A code that clients may retry by themselves, UNAVAILABLE, is kept for what may pass. A message
# over the limit is RESOURCE_EXHAUSTED because gRPC itself says so of one far over it.
NAMES: dict[type[GearshiftError], str] = {
    GearshiftError: "INTERNAL",
    InvalidRequest: "INVALID_ARGUMENT",
    TooLarge: "RESOURCE_EXHAUSTED",
    UnknownModel: "NOT_FOUND",
    UnknownVariant: "NOT_FOUND",
    Unsatisfiable: "FAILED_PRECONDITION",
    Unauthorized: "UNAUTHENTICATED",
    Forbidden: "PERMISSION_DENIED",
    Overloaded: "RESOURCE_EXHAUSTED",
    RateLimited: "RESOURCE_EXHAUSTED",
    BudgetSpent: "RESOURCE_EXHAUSTED",
    NotReady: "UNAVAILABLE",
    DeadlinePassed: "DEADLINE_EXCEEDED",
    EngineFailed: "INTERNAL",
    CallerLeft: "CANCELLED",
}
