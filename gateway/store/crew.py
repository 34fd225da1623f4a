"""A few threads that do one thing for each of many variants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from gateway.store.plan import Key

# Requests to the store at once, and so files that are written at once.
_AT_ONCE = 4


def each(work: Callable[[Key], None], keys: Iterable[Key]) -> None:
    """Do `work` for each key, on a few threads; raises what the first that failed raised.

    They are daemons, unlike an executor's: a store that does not answer keeps no process alive.
    """
    left = list(reversed(list(keys)))
    errors: list[BaseException] = []

    def run() -> None:
        while not errors:
            try:
                key = left.pop()
            except IndexError:
                return
            try:
                work(key)
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(_AT_ONCE, len(left)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
