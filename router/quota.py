"""What one key may use: a rate, so many requests at once, and a budget a day.

The rate is a token bucket: it fills at `requests_per_second` up to `burst`, each request takes one
token, and a level below zero is a debt that others ran up meanwhile (other processes admit by
their own view, and tell once a second), so that the rate holds over time whoever admits. Clock and
counts are arguments: monotonic seconds for the bucket, Unix seconds for the day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one key; None is no limit.

    Attributes:
        requests_per_second: over time.
        burst: requests at once after a pause; by default what one second brings, at least 1.
        concurrency: requests that have not been answered yet.
        budget_usd_per_day: what may be charged in one day, by UTC.
    """

    requests_per_second: float | None = None
    burst: int | None = None
    concurrency: int | None = None
    budget_usd_per_day: float | None = None

    @property
    def depth(self) -> float:
        """How many tokens the bucket holds when it is full."""
        if self.burst is not None:
            return float(self.burst)
        return max(1.0, self.requests_per_second or 1.0)


class Bucket(NamedTuple):
    """How many tokens there were at a moment."""

    level: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit keeps a request out, in words, and when to try again."""

    limit: Literal["requests_per_second", "concurrency", "budget_usd_per_day"]
    why: str
    retry_after_s: float


def full(limits: Limits, now_s: float) -> Bucket:
    """The bucket of a key that was never used."""
    return Bucket(limits.depth, now_s)


def refilled(bucket: Bucket, limits: Limits, now_s: float) -> Bucket:
    """The bucket now. A clock that went back fills nothing."""
    rate = limits.requests_per_second
    if rate is None:
        return full(limits, now_s)
    came = max(0.0, now_s - bucket.at_s) * rate
    return Bucket(min(limits.depth, bucket.level + came), now_s)


def taken(bucket: Bucket, tokens: float) -> Bucket:
    """The bucket after that many requests, which may be more than there were tokens."""
    return Bucket(bucket.level - tokens, bucket.at_s)


def refusal(
    limits: Limits, bucket: Bucket, running: int, spent_usd: float, unix_s: float
) -> Refusal | None:
    """What keeps the next request out, if anything does.

    A request is let in while the day's budget is not used up yet, whatever it will cost: its price
    is known when it has run. So a budget is exceeded by the requests that run meanwhile, at most.

    Args:
        bucket: as it is now.
        running: requests of this key that have not been answered.
        spent_usd: what was charged today.
    """
    budget = limits.budget_usd_per_day
    if budget is not None and spent_usd >= budget:
        why = f"{spent_usd:.6g} of {budget:g} USD are spent; the next day begins at 00:00 UTC"
        return Refusal("budget_usd_per_day", why, day_left_s(unix_s))
    most = limits.concurrency
    if most is not None and running >= most:
        why = f"{running} requests of this key run, of {most} at once"
        return Refusal("concurrency", why, 1.0)
    rate = limits.requests_per_second
    if rate is not None and bucket.level < 1.0:
        why = f"more than {rate:g} requests per second, {limits.depth:g} at once after a pause"
        return Refusal("requests_per_second", why, (1.0 - bucket.level) / rate)
    return None


def day_of(unix_s: float) -> str:
    """The day of a moment, by UTC, as 2026-01-31."""
    return datetime.fromtimestamp(unix_s, UTC).date().isoformat()


def day_left_s(unix_s: float) -> float:
    """Seconds until the next day begins, by UTC."""
    return _DAY_S - unix_s % _DAY_S
