"""Shedding: a refusal stands for those who ask the same, until something leaves the queue.

Under a load of ten times what the lanes can do, nine of ten requests are refused, and what a
refusal costs decides what is left for the tenth. Deciding anew would say the same: nothing that
waits has gone, and the refusal said how long it takes to fit. So it is kept, and answered without
decoding a body or asking the router; where the same bytes come again, without parsing HTTP either
(`gateway.http.limits`). As many as have left the queue since are let through to be decided anew,
and one whenever the refusal has grown old.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from router.constraints import KEYS, TIMEOUT_PARAMETER
from router.errors import Overloaded

Answer = TypeVar("Answer")

# A refusal is old after this long, or when it said the request would fit: what lanes learn, and
# variants that become ready, end none by themselves.
_LONGEST_S = 0.01
# Until the one that is let through then has been decided.
_PROBE_S = 0.001
# One that was not decided anew for this long refuses nobody.
_FORGOTTEN_S = 0.1
# But while others are being decided already, one may be as old as this.
_CROWDED_S = 1.0
# Kinds of request whose refusals are kept.
_KINDS = 1024

# Bytes of JSON that may be looked through while others wait: about a quarter of a millisecond.
_LOOKED_THROUGH = 256 << 10
# What a body may hold that changes what its request demands. A backslash may spell any key.
_DEMANDS = re.compile(
    rb'\\|"(?:%b)"' % b"|".join(key.encode() for key in (*KEYS, TIMEOUT_PARAMETER))
)


def demands_nothing(body: bytes | memoryview, json_length: int | None = None) -> bool:
    """Whether the JSON part of a body certainly states no constraint.

    Args:
        json_length: of the JSON part, where tensors follow it.
    """
    length = len(body) if json_length is None else json_length
    return length <= _LOOKED_THROUGH and _DEMANDS.search(body, 0, length) is None


@dataclass(slots=True, eq=False)
class Held(Generic[Answer]):
    """A refusal that is kept.

    Attributes:
        answer: what is sent.
        count: counts one request more that it refused.
        until_s: monotonic time at which it is old.
        ends_s: monotonic time from which on it refuses nobody.
        left: how many had left the queue when it was decided, and those let through since.
        left_now: how many have left it.
    """

    answer: Answer
    count: Callable[[], None]
    until_s: float
    ends_s: float
    left: int
    left_now: Callable[[], int]

    def copy(self) -> Held[Answer]:
        """The same, which lets others through by itself."""
        return replace(self)

    def stands(self, now_s: float, *, crowded: bool = False) -> bool:
        """Whether it refuses one more; if not, that one must be decided anew.

        Args:
            crowded: whether as many are being decided already as can be.
        """
        if crowded and now_s < self.ends_s + _CROWDED_S:
            return True
        if self.left < self.left_now():
            self.left += 1
            return False
        if self.until_s <= now_s:
            self.until_s = max(self.until_s, min(now_s + _PROBE_S, self.ends_s))
            return False
        return True


class Shed(Generic[Answer]):
    """Refusals by what was asked.

    Args:
        left_now: a number that grows by one for each request that leaves the queue.
    """

    def __init__(self, left_now: Callable[[], int]) -> None:
        self._left_now = left_now
        self._held: dict[Hashable, Held[Answer]] = {}
        self._kept_s = 0.0

    def any(self, now_s: float) -> bool:
        """Whether anybody was refused lately."""
        if self._held and now_s - self._kept_s > _FORGOTTEN_S:
            self._held.clear()
        return bool(self._held)

    def keep(
        self,
        key: Hashable,
        error: Overloaded,
        answer: Answer,
        count: Callable[[], None],
        now_s: float,
    ) -> Held[Answer]:
        """Keep a refusal that was decided at `now_s` for requests that share `key`."""
        if len(self._held) >= _KINDS:
            self._held.clear()
        self._kept_s = now_s
        until_s = now_s + min(_LONGEST_S, error.retry_after_s)
        left = self._left_now()
        ends_s = now_s + _FORGOTTEN_S
        held = self._held[key] = Held(answer, count, until_s, ends_s, left, self._left_now)
        return held

    def find(self, key: Hashable, now_s: float) -> Held[Answer] | None:
        """The refusal that stands for one more request of this kind."""
        held = self._held.get(key)
        return held if held is not None and held.stands(now_s) else None

    def is_over(self, key: Hashable) -> bool:
        """Whether a request of this kind that was let in shows that there is room for others.

        It does not where it took the place of one that left.
        """
        held = self._held.get(key)
        return held is not None and held.left >= self._left_now()
