"""What the workers of one server tell each other for the console, over Unix sockets.

Whoever is asked for the page's data asks the others, each on a socket in the folder that nobody
else may enter, and joins what they say: see `gateway.console.joining`. A question is one line of
JSON; the answer is JSON up to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.processes.worker import Place

_LOG = logging.getLogger(__name__)

# A worker whose loop is free answers within milliseconds; a page asks again every few seconds.
_PATIENCE_S = 1.0
_MOST_QUESTION_BYTES = 4096

Question = Mapping[str, Any]
"""What is asked: its `what`, and what that needs beside."""


@contextlib.asynccontextmanager
async def answering(place: Place, answer: Callable[[Question], Any]) -> AsyncIterator[None]:
    """Answer the other workers' questions by `answer`."""

    async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), _PATIENCE_S)
            writer.write(_bytes(answer(json.loads(line))))
            await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:
            _LOG.warning("another worker went away while it was told of the console: %s", error)
        finally:
            writer.close()

    path = _path(place, place.order.number)
    # What a worker in the same place left behind when it was killed.
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(told, path, limit=_MOST_QUESTION_BYTES)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def asked(place: Place | None, question: Question, own: Any) -> dict[int, Any]:
    """What every worker answers, by its number; without those that are silent.

    Args:
        own: what this one answers.
    """
    if place is None:
        return {0: own}
    others = [number for number in range(place.order.count) if number != place.order.number]
    answers = await asyncio.gather(*[_ask(_path(place, number), question) for number in others])
    told = {number: answer for number, answer in zip(others, answers, strict=True) if answer}
    # As the others' come: keys of objects are texts there.
    return {place.order.number: orjson.loads(_bytes(own)), **told}


async def _ask(path: Path, question: Question) -> Any:
    with contextlib.suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(_bytes(question) + b"\n")
                return orjson.loads(await reader.read())
            finally:
                writer.close()
    return None


def _bytes(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def _path(place: Place, number: int) -> Path:
    return place.socket_of(number).with_suffix(".console")
