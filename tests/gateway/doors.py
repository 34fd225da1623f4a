"""Doors on a ledger, for the tests of who gets in: as several processes have them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.metrics import Metrics
from gateway.trust import access as door
from gateway.trust import keys
from gateway.trust.access import Access
from gateway.trust.keys import Key
from gateway.trust.ledger import Ledger
from router.errors import (
    BudgetSpent,
    Forbidden,
    NotReady,
    RateLimited,
    Unauthorized,
)

DAY = "2026-01-01"


def bearer(text: str) -> bytes:
    return f"Bearer {text}".encode()


def made(ledger: Ledger, name: str = "acme", **limits: Any) -> tuple[Key, bytes]:
    key, text = keys.create(keys.wanted({"name": name, **limits}), "2026-01-01T00:00:00+00:00")
    ledger.insert(key)
    return key, bearer(text)


class Doors:
    """Doors of one folder's ledger, as several processes have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(None, folder, "a test's")
        self._count = 0

    @asynccontextmanager
    async def open(self, **options: Any) -> Any:
        self._count += 1
        metrics = Metrics()
        found = Access(
            Ledger(None, self.folder, f"p{self._count}"),
            metrics,
            **{"require_keys": False, "loopback": True, **options},
        )
        found.metrics = metrics  # type: ignore[attr-defined]
        await found.start()
        try:
            yield found
        finally:
            await found.stop()


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def admits(access: Access, authorization: bytes | None, scope: door.Scope = "infer") -> bool:
    try:
        caller = access.enter(authorization, scope)
    except (RateLimited, BudgetSpent, Unauthorized, Forbidden):
        return False
    access.leave(caller)
    return True


def may(access: Access, authorization: bytes) -> bool:
    try:
        return admits(access, authorization)
    except NotReady:
        return False


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
