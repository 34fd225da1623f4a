"""A backlog: what the event loop leaves for a thread of its own, so that nobody waits for it.

It is bounded: where the thread cannot keep up (a full disk, a collector that is gone), what is one
too many is dropped and counted. Nothing that is asked of it blocks but `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)

Item = TypeVar("Item")


class Backlog(Generic[Item]):
    """Items on their way to a thread.

    Args:
        name: the thread's.
        deliver: is called on that thread with some of them, in their order; what it raises is
            logged, and they are lost.
        most: items that may wait.
        every_s: how long the first of them waits for company.
        at_once: items that `deliver` is given at most; as many do not wait any longer, nor do
            as many as may wait.
        again: is asked on that thread; while it says so, `deliver` is called, with nothing, also
            after `every_s` in which nothing came, and at the end.

    Attributes:
        dropped: how many were one too many so far.
    """

    def __init__(
        self,
        name: str,
        deliver: Callable[[Sequence[Item]], None],
        *,
        most: int,
        every_s: float,
        at_once: int,
        again: Callable[[], bool] = lambda: False,
    ) -> None:
        self.dropped = 0
        self._deliver = deliver
        self._most = most
        self._every_s = every_s
        self._at_once = at_once
        self._again = again
        self._full = min(at_once, most)
        self._in_hand = 0
        self._items: deque[Item] = deque()
        self._awake = False
        self._some = threading.Event()
        self._enough = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Leave `item` to the thread; called on one thread alone."""
        items = self._items
        waiting = len(items)
        if waiting >= self._most or self._closing:
            self.dropped += 1
            return
        items.append(item)
        if not self._awake:
            self._awake = True
            self._some.set()
        if waiting + 1 == self._full:
            self._enough.set()

    def close(self, patience_s: float) -> int:
        """Deliver what waits; how many were lost, or not delivered within `patience_s`."""
        before = self.dropped
        self._closing = True
        self._enough.set()
        self._some.set()
        self._thread.join(patience_s)
        return self.dropped - before + self._in_hand + len(self._items)

    def _run(self) -> None:
        while not self._closing:
            if self._some.wait(self._every_s if self._again() else None):
                self._some.clear()
                self._enough.wait(self._every_s)
                self._enough.clear()
                # Before the items are taken: who comes later wakes this thread again.
                self._awake = False
            self._empty()
        self._empty()

    def _empty(self) -> None:
        items = self._items
        if not items and self._again():
            self._hand_over([])
        while items:
            self._in_hand = min(len(items), self._at_once)
            self._hand_over([items.popleft() for _ in range(self._in_hand)])
            self._in_hand = 0
            # The event loop comes first: it waits for the interpreter while this thread works.
            time.sleep(0)

    def _hand_over(self, some: Sequence[Item]) -> None:
        try:
            self._deliver(some)
        except Exception:
            self.dropped += len(some)
            _LOG.exception("%s: %d items are lost", threading.current_thread().name, len(some))
