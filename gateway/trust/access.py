"""Who may do what: keys, their scopes, and what each may use.

Every protocol asks before it reads a request's body, and says when the request has ended. While no
key was ever made and none is required, everybody may infer and read, and administrate from this
machine alone. What keys use is counted here, and told to the ledger once a second, from another
thread: while its database is gone or locked, requests go on by the keys that were known last. Where
none was known, one may have been made in what cannot be read: then nobody gets in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from gateway.metrics import Metrics
from gateway.trust import keys
from gateway.trust.accounts import Accounts, Caller
from gateway.trust.keys import Key, Scope
from gateway.trust.ledger import Ledger, LedgerUnusable, NameTaken
from router.errors import (
    BudgetSpent,
    Forbidden,
    GearshiftError,
    InvalidRequest,
    NotReady,
    RateLimited,
    Unauthorized,
)
from router.quota import Refusal

__all__ = ["ANYBODY", "Access", "Caller", "Scope"]

_LOG = logging.getLogger(__name__)

_EXCHANGE_EVERY_S = 1.0
# How long a stop waits for the ledger.
_LAST_WORDS_S = 3.0

_Result = TypeVar("_Result")


ANYBODY = Caller("")
STRANGER = Caller("", tenant="none")


class Access:
    """The door. Called on the event loop's thread alone.

    Args:
        loopback: only this machine reaches the public port.

    Attributes:
        open: whether anybody may infer, so that a protocol need not ask.
    """

    def __init__(
        self, books: Ledger, metrics: Metrics, *, require_keys: bool, loopback: bool
    ) -> None:
        self.open = False
        self._books = books
        self._metrics = metrics
        self._require_keys = require_keys
        self._loopback = loopback
        self._accounts = Accounts()
        self._version: str | None = None
        self._unreadable = "they were not read yet"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._exchanging = asyncio.Lock()
        self._ticking: asyncio.Task[None] | None = None
        self._settled = True

    async def start(self) -> None:
        """Read the keys, and go on telling and hearing. Where they cannot be read nobody gets in
        until they can."""
        await self.exchange()
        if self.open and not self._loopback:
            _LOG.warning("everybody who reaches this server may use it: there is no key yet")
        self._ticking = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Tell what was not told yet, and close the ledger."""
        if self._ticking is not None:
            with contextlib.suppress(TimeoutError, LedgerUnusable):
                async with asyncio.timeout(_LAST_WORDS_S):
                    # Not in the middle of an exchange: what it told would be told again.
                    async with self._exchanging:
                        self._ticking.cancel()
                    await self.exchange()
                    await self._aside(self._books.forget_process)
            self._ticking.cancel()
        self._thread.submit(self._books.close)
        self._thread.shutdown(wait=False)

    def enter(
        self,
        authorization: bytes | None,
        scope: Scope,
        *,
        loopback: bool | None = None,
        forwarded: bool = False,
    ) -> Caller:
        """Let a request in; `leave` must follow.

        Args:
            authorization: the header of that name, as it came.
            loopback: whether only this machine reaches the port it came by; by default as the
                public one.
            forwarded: whether a proxy passed it on, so that it is not from this machine.

        Raises:
            Unauthorized, Forbidden, RateLimited, BudgetSpent.
            NotReady: the keys could not be read yet.
        """
        if self._version is None:
            raise NotReady(f"the keys cannot be read: {self._unreadable}", 1.0)
        if not (self._version or self._require_keys):
            if scope != "admin":
                return ANYBODY
            if forwarded:
                raise self._stranger("a key is needed to administrate through a proxy")
            if self._loopback if loopback is None else loopback:
                return ANYBODY
            raise self._stranger("a key is needed to administrate from another machine")
        found = keys.presented(authorization)
        if found is None:
            raise self._stranger("expected a header `Authorization: Bearer KEY` with a key")
        account = self._accounts.get(found[0])
        key = None if account is None else account.key
        if not keys.opens(key, found[1]) or account is None or key is None:
            raise self._stranger("the key is none that may be used here")
        if not key.may(scope):
            self._metrics.key_refused(key.name, Forbidden.code)
            own = ", ".join(key.scopes)
            raise Forbidden(
                f"key {key.name} has the scope {own}; this needs {scope}", key=key.name, needs=scope
            )
        refusal = account.enter(time.monotonic(), time.time())
        if refusal is not None:
            raise self._over(key, refusal)
        self._metrics.key_entered(key.name)
        return account.caller

    def may(self, caller: Caller, scope: Scope, *, forwarded: bool = False) -> bool:
        """Whether `caller`, who came in by the public port, may do what needs `scope`.

        Args:
            forwarded: as `enter` has it.
        """
        if caller is ANYBODY:
            return scope != "admin" or (self._loopback and not forwarded)
        account = self._accounts.get(caller.id)
        return account is not None and account.key.may(scope)

    def kept_out(self, error: GearshiftError) -> Caller:
        """Whose request it was that `enter` refused, as far as its key is known."""
        account = self._accounts.named(str(error.members.get("key", "")))
        return STRANGER if account is None else account.caller

    def leave(self, caller: Caller, usd: float = 0.0) -> None:
        """The request has ended, and `usd` was charged for it."""
        if caller is not ANYBODY and (account := self._accounts.get(caller.id)) is not None:
            account.leave(usd)
            self._metrics.key_left(caller.name, usd)

    async def create_key(self, raw: dict[str, Any]) -> tuple[Key, str]:
        """A new key as `keys.Wanted` describes it, and its text, which is shown this once.

        Raises:
            InvalidRequest: a field is not usable, or the name is taken.
            NotReady: the ledger cannot be written.
        """
        key, text = keys.create(keys.wanted(raw), _now())
        try:
            await self._change(self._books.insert, key)
        except NameTaken as error:
            raise InvalidRequest("name", key.name, "a name that no key in use has") from error
        _LOG.info("key %s (%s) was made", key.name, key.id)
        return key, text

    async def change_key(self, name: str, raw: dict[str, Any]) -> Key | None:
        """Give a key the scopes, limits and tenant of `raw`, and leave it the others.

        Returns:
            The key as it is now; None where there is none of that name in use.

        Raises:
            InvalidRequest: a field is not usable.
            NotReady: the ledger cannot be written.
        """
        old = self.key(name)
        if old is None:
            return None
        own = {k: v for k, v in old.as_json().items() if k in keys.Wanted.model_fields}
        if raw.get("name", old.name) != old.name:
            raise InvalidRequest("name", raw["name"], f"none, or {old.name}: a name stays")
        asked = keys.wanted(own | raw)
        found = await self._change(
            self._books.limit, old.id, asked.limits, tuple(asked.scopes), asked.tenant
        )
        return self.key(old.id) if found else None

    async def revoke_key(self, name: str) -> bool:
        """Let nobody in by this key any more; whether there was one in use.

        Raises:
            NotReady: the ledger cannot be written.
        """
        found = await self._change(self._books.revoke, name, _now())
        if found:
            _LOG.info("key %s was revoked", name)
        return found

    def key(self, name: str) -> Key | None:
        """The key in use that has this name or id."""
        usable = [a.key for a in self._accounts if a.key.revoked is None]
        return next((key for key in usable if name in (key.id, key.name)), None)

    def report(self) -> list[dict[str, Any]]:
        """Every key with what it used today, as JSON."""
        return [account.as_json() for account in self._accounts]

    def _stranger(self, why: str) -> Unauthorized:
        self._metrics.key_refused("", Unauthorized.code)
        return Unauthorized(why)

    def _over(self, key: Key, refusal: Refusal) -> GearshiftError:
        kind = BudgetSpent if refusal.limit == "budget_usd_per_day" else RateLimited
        self._metrics.key_refused(key.name, kind.code)
        words = f"key {key.name}: {refusal.why}"
        return kind(words, refusal.retry_after_s, key=key.name, limit=refusal.limit)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_EXCHANGE_EVERY_S)
            try:
                await self.exchange()
            except Exception:  # such as a row that somebody wrote by hand
                _LOG.exception("what the ledger holds cannot be understood")
                self._unsettled("what it holds cannot be understood")

    async def exchange(self) -> None:
        """Tell the ledger what was used, and hear what the others did, and which keys there are."""
        async with self._exchanging:
            now_s, unix_s = time.monotonic(), time.time()
            day, used = self._accounts.told(now_s, unix_s)
            try:
                view = await self._aside(self._books.exchange, day, used, self._version)
            except LedgerUnusable as error:
                self._unsettled(str(error))
                return
            self._accounts.heard(view, day, used, time.monotonic(), time.time())
            # A door that was closed once stays closed, whatever became of the keys.
            self._version = view.version or ("gone" if self._version else "")
            self.open = not (self._version or self._require_keys)
            self._metrics.ledger_up(True)
            if not self._settled:
                self._settled = True
                _LOG.warning("the ledger can be used again")

    def _unsettled(self, why: str) -> None:
        self._unreadable = why
        if not self._version:
            # "There is no key" is nothing to go on by: the first may be in what cannot be read.
            self._version = None
            self.open = False
        self._metrics.ledger_up(False)
        if self._settled:
            self._settled = False
            known = "nobody gets in" if self._version is None else "keys go on as last known"
            _LOG.warning("the ledger cannot be used (%s); until it can %s", why, known)

    async def _change(self, act: Callable[..., _Result], *args: Any) -> _Result:
        try:
            result = await self._aside(act, *args)
        except LedgerUnusable as error:
            raise NotReady(f"the ledger cannot be written: {error}", 1.0) from error
        await self.exchange()
        return result

    async def _aside(self, act: Callable[..., _Result], *args: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act, *args)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
