"""A few threads beside the event loop, for work at the door that would hold it up.

Inflating, decoding large JSON, tokenising text, decoding pictures: all before a request is queued
or after it was answered. Few threads, because they take their time from the lanes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

from gateway.processes.cores import usable_cores

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

_MOST_THREADS = 4


async def run(
    function: Callable[_Given, _Result], *args: _Given.args, **kwargs: _Given.kwargs
) -> _Result:
    """What `function` returns or raises, run on one of the threads; in the order of the calls."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool(), lambda: function(*args, **kwargs))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        max_workers=min(_MOST_THREADS, usable_cores()), thread_name_prefix="aside"
    )
