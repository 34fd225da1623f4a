"""Who may do what: keys, their scopes, and what each may use.

Every protocol asks before it reads a request's body, and says when the request has ended. While no
key was ever made, everybody may do everything on the port they can reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["infer", "admin", "read"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request this is: the name of the key, for metrics, logs and budgets."""

    name: str


ANYBODY = Caller("")


class Access:
    """The door. Called on the event loop's thread alone."""

    def enter(self, authorization: bytes | None, scope: Scope) -> Caller:
        """Let a request in; `leave` must follow.

        Args:
            authorization: the header of that name, as it came.

        Raises:
            Unauthorized, Forbidden, RateLimited, BudgetSpent.
        """
        del authorization, scope
        return ANYBODY

    def leave(self, caller: Caller, usd: float = 0.0) -> None:
        """The request has ended, and `usd` was charged for it."""
