"""What each key uses, as this process knows it: its own requests now, others' a second late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.trust.keys import Key
from gateway.trust.ledger import Total, Used, View
from router import quota
from router.quota import Bucket, Refusal


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request this is: the name of the key, for metrics, logs and budgets, and its tenant."""

    name: str
    id: str = ""
    tenant: str = "open"


class Account:
    """One key and what it uses. Seconds are monotonic unless they say Unix."""

    __slots__ = (
        "_bucket", "_elsewhere", "_known_requests", "_running", "_spent_usd", "_told_running",
        "_unsaid_requests", "_unsaid_usd", "caller", "key",
    )  # fmt: skip

    def __init__(self, key: Key, bucket: Bucket) -> None:
        self.change(key)
        self._bucket = bucket
        self._running = self._told_running = self._elsewhere = 0
        self._spent_usd = self._unsaid_usd = 0.0
        self._unsaid_requests = 0
        self._known_requests: int | None = None

    def change(self, key: Key) -> None:
        """The key is this now."""
        self.key = key
        self.caller = Caller(key.name, key.id, key.tenant)

    def enter(self, now_s: float, unix_s: float) -> Refusal | None:
        """One request more, unless a limit keeps it out."""
        limits = self.key.limits
        if limits.requests_per_second is not None:
            self._bucket = quota.refilled(self._bucket, limits, now_s)
        running = self._running + self._elsewhere
        spent_usd = self._spent_usd + self._unsaid_usd
        refusal = quota.refusal(limits, self._bucket, running, spent_usd, unix_s)
        if refusal is None:
            if limits.requests_per_second is not None:
                self._bucket = quota.taken(self._bucket, 1)
            self._running += 1
            self._unsaid_requests += 1
        return refusal

    def leave(self, usd: float) -> None:
        """A request that entered has ended."""
        self._running -= 1
        self._unsaid_usd += usd

    def told(self, now_s: float, unix_s: float) -> Used | None:
        """What the ledger does not know yet, if anything."""
        if not (self._unsaid_requests or self._unsaid_usd or self._running or self._told_running):
            return None
        bucket = quota.refilled(self._bucket, self.key.limits, now_s)
        return Used(self._unsaid_requests, self._unsaid_usd, self._running, bucket.level, unix_s)

    def written(self, used: Used) -> None:
        """The ledger knows that now."""
        self._unsaid_requests -= used.requests
        self._unsaid_usd -= used.usd
        self._told_running = used.running
        if self._known_requests is not None:
            self._known_requests += used.requests

    def heard(self, total: Total, now_s: float) -> None:
        """What all processes did today; what the others did takes from this bucket too."""
        if self._known_requests is not None and total.requests > self._known_requests:
            bucket = quota.refilled(self._bucket, self.key.limits, now_s)
            self._bucket = quota.taken(bucket, total.requests - self._known_requests)
        self._known_requests = total.requests
        self._spent_usd = total.usd
        self._elsewhere = total.running_elsewhere

    def new_day(self) -> None:
        """Counts begin again; what the others did in its first moments is not known."""
        self._known_requests = None

    def as_json(self) -> dict[str, Any]:
        """The key and what it used today."""
        return self.key.as_json() | {
            "spent_usd_today": self._spent_usd + self._unsaid_usd,
            "requests_today": (self._known_requests or 0) + self._unsaid_requests,
            "running": self._running + self._elsewhere,
        }


class Accounts:
    """Every key's, by id."""

    def __init__(self) -> None:
        self._by_id: dict[str, Account] = {}
        self._by_name: dict[str, Account] = {}
        self._day = ""

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_id.values())

    def get(self, key: str) -> Account | None:
        """That of the key with this id."""
        return self._by_id.get(key)

    def named(self, name: str) -> Account | None:
        """That of the key with this name, the one in use before those that were revoked."""
        return self._by_name.get(name)

    def told(self, now_s: float, unix_s: float) -> tuple[str, dict[str, Used]]:
        """The day, and what the ledger does not know yet by key's id."""
        used = {
            number: one
            for number, account in self._by_id.items()
            if (one := account.told(now_s, unix_s)) is not None
        }
        return quota.day_of(unix_s), used

    def heard(
        self, view: View, day: str, used: Mapping[str, Used], now_s: float, unix_s: float
    ) -> None:
        """The ledger's answer to what it was told."""
        for number, one in used.items():
            self._by_id[number].written(one)
        if view.keys is not None and (view.keys or not self._by_id):
            self._by_id = {key.id: self._account(key, view, now_s, unix_s) for key in view.keys}
            in_use_last = sorted(self, key=lambda account: account.key.revoked is None)
            self._by_name = {account.key.name: account for account in in_use_last}
        for number, account in self._by_id.items():
            if day != self._day:
                account.new_day()
            account.heard(view.totals.get(number, Total()), now_s)
        self._day = day

    def _account(self, key: Key, view: View, now_s: float, unix_s: float) -> Account:
        known = self._by_id.get(key.id)
        if known is not None:
            known.change(key)
            return known
        if key.id in view.buckets:
            # As it was left, perhaps by an earlier process: a restart gives nothing away.
            bucket = quota.refilled(Bucket(*view.buckets[key.id]), key.limits, unix_s)
        else:
            bucket = quota.full(key.limits, unix_s)
        return Account(key, Bucket(bucket.level, now_s))
