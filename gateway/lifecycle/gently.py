"""Work that may take long and must not be noticed: on threads that the machine runs last.

A lane that serves and a variant that is loaded want the same cores. On Linux each thread has a
niceness of its own; elsewhere it is the process's, and is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

# A tenth of a core that a lane wants as well. Not as low as it goes: lanes wait for a thread that
# holds the interpreter's lock, and where others want its core that one would wait for long.
_NICENESS = 10
_PAUSE_S = 0.001


async def run(work: Callable[_P, _T], *args: _P.args, **more: _P.kwargs) -> _T:
    """As `apart`, on a thread that gives way to all others."""

    def gently() -> _T:
        give_way()
        return work(*args, **more)

    return await apart(gently)


async def apart(work: Callable[_P, _T], *args: _P.args, **more: _P.kwargs) -> _T:
    """What `work` returns, done on a thread of its own.

    The process does not wait for it when it ends, as it would for `asyncio.to_thread`: an engine
    may hang while it loads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def finish(outcome: _T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(outcome)  # type: ignore[arg-type]

    def thread() -> None:
        outcome, failed = None, None
        try:
            outcome = work(*args, **more)
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, outcome, failed)

    threading.Thread(target=thread, name="apart", daemon=True).start()
    return await done


def give_way() -> None:
    """Let every other thread go before the calling one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def pause() -> None:
    """Between two steps: let whoever waits for the core or the interpreter go first."""
    time.sleep(_PAUSE_S)
