"""A closed loop against servers that take long: answers a second once it runs evenly.

wrk counts whatever was answered within its interval. Where batches take half a second, the first
has not ended for a tenth of the time, and the last is counted or not as it happens. Here the rate
is the slope of a line through the answers' times, after the first few batches.
"""

from __future__ import annotations

import asyncio
import re
import time

import numpy as np

from tests.bench import replay
from tests.bench.load import Post

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def rate(post: Post, *, connections: int, seconds: float, skip: int) -> float:
    """Answers a second.

    Args:
        skip: answers at the start that are not counted.

    Raises:
        RuntimeError: too few answers to say anything, or one that is none; the message holds it.
    """
    times_s = asyncio.run(_run(post, connections, seconds))
    counted = np.sort(np.array(times_s))[skip:]
    if len(counted) < skip:
        raise RuntimeError(f"{len(counted) + skip} answers in {seconds:g} s; expected {2 * skip}")
    return float(np.polyfit(counted, np.arange(len(counted)), 1)[0])


async def _run(post: Post, connections: int, seconds: float) -> list[float]:
    host, _, path = post.url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    request = replay.post(name, int(port), "/" + path, post.body, dict(post.headers))
    times_s: list[float] = []
    until_s = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection(name, int(port))
        while time.perf_counter() < until_s:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            found = _LENGTH.search(head)
            content = await reader.readexactly(int(found[1]) if found else 0)
            if head[9:12] != b"200":
                raise RuntimeError((head + content).decode(errors="replace"))
            times_s.append(time.perf_counter())
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return times_s
