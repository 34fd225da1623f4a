"""Looks: when to look whether something is to be changed. At once when told, and now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_LOG = logging.getLogger(__name__)

# Looks that demand asks for are no closer than this.
SOONEST_S = 1.0


class Looks:
    """Calls `settle` again and again. Everything runs on the event loop's thread.

    Args:
        settle: changes what is to be changed; what it raises is logged.
        every_s: how often to look although nobody asked, or None; then looks need no distance.
    """

    def __init__(
        self, settle: Callable[[], Awaitable[None]], every_s: Callable[[], float | None]
    ) -> None:
        self._settle = settle
        self._every_s = every_s
        self._wake = asyncio.Event()
        self._looked: list[asyncio.Future[None]] = []
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on."""
        self._task = asyncio.create_task(self._run())

    def soon(self) -> None:
        """Look at once, or as soon as may be."""
        self._wake.set()

    async def looked(self) -> bool:
        """Return after a look that has begun from now on; False at once where there are none."""
        if self._task is None or self._stopping:
            return False
        looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looked.append(looked)
        self._wake.set()
        await looked
        return True

    async def end(self, patience_s: float) -> None:
        """Look no more; returns when the look that is being taken is over, or out of patience."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=patience_s)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                async with asyncio.timeout(self._every_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            looked, self._looked = self._looked, []
            try:
                await self._settle()
            except Exception:
                _LOG.exception("the loaded variants could not be changed")
            _tell(looked)
            every_s = self._every_s()
            if not self._stopping and every_s is not None and not self._looked:
                await asyncio.sleep(min(SOONEST_S, every_s))
        _tell(self._looked)


def _tell(looked: list[asyncio.Future[None]]) -> None:
    for future in looked:
        if not future.done():
            future.set_result(None)
