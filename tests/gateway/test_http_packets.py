"""However a stream of requests is cut into packets, the same requests are answered, in order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.http.asgi import ANSWER
from gateway.http.heads import Heads
from gateway.http.limits import limited

PATIENCE_S = 10.0
# Bodies that look like heads, and heads that come again.
_BODIES = st.sampled_from(
    [
        *(b"", b"\r\n\r\n", b"body" * 20),
        b"POST /inner HTTP/1.1\r\nContent-Length: 4\r\n\r\n",
        b"POST /again HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    ]
)
_EXTRAS = st.sampled_from(
    ["", "X-Key: mine\r\n", "X-Request-Id: one\r\n", "X-Junk: " + "j" * 40 + "\r\n"]
)


@st.composite
def _requests(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    path = draw(st.sampled_from(["/again", "/other"]))
    body, extra = draw(_BODIES), draw(_EXTRAS)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return path, body, draw(st.sampled_from([b"", b"", b"\r\n"])) + head.encode() + body


_CONNECTIONS = st.lists(
    st.tuples(
        st.lists(_requests(), min_size=1, max_size=3),
        st.lists(st.integers(1, 99), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


async def _app(scope: Any, receive: Any, _: object) -> None:
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    answer = json.dumps([scope["path"], body.hex(), repr(scope["headers"])]).encode() + b"\n"
    await scope[ANSWER](200, [(b"content-length", b"%d" % len(answer))], answer)


class _Sink(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def answers(self) -> list[Any]:
        parts = self.written.split(b"HTTP/1.1 200 ")[1:]
        return [json.loads(part.partition(b"\r\n\r\n")[2]) for part in parts]


async def _answered(protocol_class: Any, config: Any, packets: list[bytes], wanted: int) -> Any:
    """What one connection is answered that sends these packets, one in each turn of the loop."""
    protocol = protocol_class(config=config, server_state=ServerState(), app_state={})
    sink = _Sink()
    protocol.connection_made(sink)
    for packet in packets:
        protocol.data_received(packet)
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        while sink.written.count(b"\n") < wanted or len(sink.answers()) < wanted:
            assert b"HTTP/1.1 4" not in sink.written, sink.written
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    return sink.answers()


def _cut(stream: bytes, percents: list[int]) -> list[bytes]:
    """The stream in packets, each that many percent of what is left."""
    packets = []
    for percent in percents:
        length = len(stream) * percent // 100
        packets.append(stream[:length])
        stream = stream[length:]
    return [packet for packet in (*packets, stream) if packet]


@given(_CONNECTIONS)
def test_packets_say_nothing_of_requests(
    connections: list[tuple[list[tuple[str, bytes, bytes]], list[int]]],
) -> None:
    async def main() -> None:
        with_limits = limited(4096, 60.0)
        config = uvicorn.Config(_app, http=with_limits, ws="none", log_config=None)
        config.load()
        for requests, _ in connections:
            for _, _, raw in requests:  # so that their heads came before
                await _answered(with_limits, config, [raw], 1)
        for requests, percents in connections:
            stream = b"".join(raw for _, _, raw in requests)
            got = await _answered(with_limits, config, _cut(stream, percents), len(requests))
            # As they are answered one by one, by a server that has seen nothing.
            alone = []
            for _, _, raw in requests:
                fresh = type("Fresh", (with_limits,), {"heads": Heads()})
                alone += await _answered(fresh, config, [raw], 1)
            assert got == alone
            assert [(path, bytes.fromhex(body)) for path, body, _ in got] == [
                (path, body) for path, body, _ in requests
            ]

    asyncio.run(main())
