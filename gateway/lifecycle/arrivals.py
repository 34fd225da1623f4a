"""Arrivals: requests wait here for the next variant that comes into memory."""

from __future__ import annotations

import asyncio
from collections import Counter


class Arrivals:
    """Who waits for one. Everything runs on the event loop's thread.

    Attributes:
        waiting: requests that wait, by model.
    """

    def __init__(self) -> None:
        self.waiting: Counter[str] = Counter()
        self._next: list[asyncio.Future[None]] = []

    async def next(self, model: str, seconds: float) -> bool:
        """Wait so long, at most, for a request to `model`; whether a variant has come meanwhile."""
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next.append(came)
        self.waiting[model] += 1
        try:
            async with asyncio.timeout(seconds):
                await came
        except TimeoutError:
            return False
        finally:
            self.waiting[model] -= 1
        return True

    def announce(self) -> None:
        """One has come, or none will any more: whoever waits decides again."""
        for came in self._next:
            if not came.done():
                came.set_result(None)
        self._next.clear()
