"""Refusals that are written again: for the same head alone, and not for all in one turn."""

from __future__ import annotations

import asyncio
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.http.refusals import Refusals
from gateway.shed import Shed
from router.errors import Overloaded
from tests.drills.openloop import post

PATH, HURRY = "/v2/models/m/infer", {"Gearshift-Max-Latency-Ms": "5"}
BODY = b'{"inputs": []}'
NAMED = re.compile(rb"x-request-id: ([^\r]+)\r\n")


def refused(
    packet: bytes,
    *,
    keep_alive: bool = True,
    length: str = str(len(BODY)),
    named: tuple[bytes, ...] = (),
) -> Refusals:
    """A table that was told of the refusal of `packet`."""
    left = [0]
    shed: Shed[Any] = Shed(lambda: left[0])
    answer = (429, [(b"content-length", b"2")], b"no")
    held = shed.keep("k", Overloaded("no", retry_after_s=9), answer, lambda: None, time.monotonic())
    headers = [
        (b"content-length", length.encode()),
        *((b"x-request-id", name) for name in named),
    ]
    cycle: Any = SimpleNamespace(
        default_headers=[(b"server", b"x")],
        keep_alive=keep_alive,
    )
    refusals = Refusals()
    refusals.keep(packet, headers, cycle, held, None)
    return refusals


def found(refusals: Refusals, data: bytes, loop: asyncio.AbstractEventLoop) -> bytes | None:
    return refusals.find(data[: data.find(b"\r\n\r\n") + 4], data, loop)


def test_the_same_bytes_are_refused_with_the_same_answer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        refusals = refused(post(PATH, BODY, HURRY))
        written = found(refusals, post(PATH, BODY, HURRY), loop)
        assert written is not None
        assert written.startswith(b"HTTP/1.1 429 ") and written.endswith(b"\r\n\r\nno")
        assert b"server: x\r\ncontent-length: 2\r\n" in written
        other = BODY.replace(b"inputs", b"nothin")
        again = found(refusals, post(PATH, other, HURRY), loop)
        assert again is not None
        names = [NAMED.findall(one) for one in (written, again)]
        assert len(names[0]) == len(names[1]) == 1 and names[0] != names[1]
        assert NAMED.sub(b"", again) == NAMED.sub(b"", written)
        for different in (
            post(PATH, BODY, {}),
            post(PATH + "x", BODY, HURRY),
            post(PATH, BODY, HURRY)[:-1],
            post(PATH, BODY, HURRY) + b"G",
            post(PATH, b'{"relax" : []}', HURRY),
        ):
            assert found(refusals, different, loop) is None

    asyncio.run(main())


def test_a_request_keeps_the_name_that_its_caller_gave_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        packet = post(PATH, BODY, HURRY)
        written = found(refused(packet, named=(b"mine-1",)), packet, loop)
        assert written is not None and NAMED.findall(written) == [b"mine-1"]
        unusable = found(refused(packet, named=(b'"; drop',)), packet, loop)
        assert unusable is not None and b"drop" not in unusable and NAMED.search(unusable)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("packet", "how"),
    [
        (post(PATH, BODY, HURRY), {"keep_alive": False}),
        (post(PATH, BODY, HURRY), {"length": "3"}),
        (post(PATH, BODY, HURRY) * 2, {}),  # pipelined: the packet is not that one request
    ],
)
def test_what_is_not_one_whole_request_is_not_kept(packet: bytes, how: dict[str, Any]) -> None:
    assert not refused(packet, **how)


def test_so_many_are_let_through_in_a_turn_and_the_rest_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        message = post(PATH, BODY, HURRY)
        refusals = refused(message)
        await asyncio.sleep(0.15)  # the refusal has ended
        for _ in range(2):
            written = [found(refusals, message, loop) for _ in range(100)]
            assert [each is None for each in written] == [True] * 64 + [False] * 36
            await asyncio.sleep(0)

    asyncio.run(main())
