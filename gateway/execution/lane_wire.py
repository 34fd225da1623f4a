"""Between a lane's thread and its process: one message each way at a time, tensors in an arena.

    [length, 4 bytes little-endian][JSON]

    ["load", number, folder, card, threads, trusted]      -> ["ok", null]
    ["infer", number, where the inputs lie]               -> ["ok", where the outputs lie]
    ["kernels", number]                                   -> ["ok", {precision: count}]
    ["close", number]                                     -> ["ok", null]
    anything that fails                                   -> ["error", why]

`number` is the program's, chosen by the gateway.
"""

from __future__ import annotations

import socket
from typing import Any

import orjson

_LENGTH_BYTES = 4
_CHUNK_BYTES = 1 << 16


class Ended(Exception):
    """The other side has gone."""


def send(to: socket.socket, message: object) -> None:
    """Write one message.

    Raises:
        Ended: nobody reads it.
    """
    body = orjson.dumps(message)
    try:
        to.sendall(len(body).to_bytes(_LENGTH_BYTES, "little") + body)
    except OSError as error:
        raise Ended from error


def receive(of: socket.socket) -> Any:
    """Wait for one message.

    Raises:
        Ended: none comes any more.
    """
    try:
        got = b""
        while len(got) < _LENGTH_BYTES or len(got) < _LENGTH_BYTES + _length(got):
            more = of.recv(_CHUNK_BYTES)
            if not more:
                raise Ended
            got += more
    except OSError as error:
        raise Ended from error
    return orjson.loads(memoryview(got)[_LENGTH_BYTES:])


def _length(got: bytes) -> int:
    return int.from_bytes(got[:_LENGTH_BYTES], "little")
