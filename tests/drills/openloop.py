"""An open loop: requests are sent when they are due, whatever became of those before them.

Latency counts from the moment when a request was due, not from when it got out, so that a stall of
the server or of this very process is in the figures (no "coordinated omission": Gil Tene, "How NOT
to measure latency"). Plain sockets and one selector: a request costs about 20 µs, which is what
lets one process offer ten times what a server of the same language can take.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import random
import select
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

# How long answers are waited for behind the last request.
PATIENCE_S = 5.0
# What stands for the status of a request that was never answered, or never sent for want of a
# connection.
LOST, UNSENT = 0, -1


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: its bytes, and how many of them there are among all, by weight."""

    message: bytes
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of the requests, an element each, in the order in which they were due.

    Attributes:
        kind: which of the kinds it was.
        due_s: when it was to be sent, from the start.
        sent_s: when it was.
        took_s: from when it was due to the last byte of its answer.
        status: of HTTP; or `LOST`, or `UNSENT`.
    """

    kind: NDArray[np.int64]
    due_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    took_s: NDArray[np.float64]
    status: NDArray[np.int64]

    def since(self, second: float) -> Fate:
        """Of those that were due from then on."""
        later = self.due_s >= second
        columns = (getattr(self, column.name) for column in fields(self))
        return Fate(*[column[later] for column in columns])


def post(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """An HTTP/1.1 request as bytes, for a connection that is kept open."""
    lines = [f"POST {path} HTTP/1.1", "Host: drill", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def infer(model: str, document: Mapping[str, object], headers: Mapping[str, str]) -> bytes:
    """An infer request in JSON."""
    content = {"Content-Type": "application/json", **headers}
    return post(f"/v2/models/{model}/infer", json.dumps(document).encode(), content)


def replay(
    address: tuple[str, int],
    kinds: Sequence[Kind],
    *,
    per_second: float,
    seconds: float,
    connections: int = 4096,
    seed: int = 0,
) -> Fate:
    """Send requests as a Poisson process from a process of their own; returns when all are settled.

    Args:
        connections: at most; one that is due when all are in use counts as `UNSENT`.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_replay, address, kinds, per_second, seconds, connections, seed).result()


def _replay(
    address: tuple[str, int],
    kinds: Sequence[Kind],
    per_second: float,
    seconds: float,
    connections: int,
    seed: int,
) -> Fate:
    dice = random.Random(seed)
    due: list[float] = []
    at = dice.expovariate(per_second)
    while at < seconds:
        due.append(at)
        at += dice.expovariate(per_second)
    chosen = dice.choices(range(len(kinds)), [kind.weight for kind in kinds], k=len(due))
    gc.disable()
    loop = _Loop(address, [kind.message for kind in kinds], due, chosen, connections)
    loop.run()
    return Fate(
        np.array(chosen, np.int64),
        np.array(due),
        np.array(loop.sent_s),
        np.array(loop.took_s),
        np.array(loop.status, np.int64),
    )


class _Loop:
    def __init__(
        self,
        address: tuple[str, int],
        messages: Sequence[bytes],
        due: Sequence[float],
        chosen: Sequence[int],
        connections: int,
    ) -> None:
        self._address, self._messages = address, messages
        self._due, self._chosen = due, chosen
        self._left = connections
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._free: list[socket.socket] = []
        # By descriptor: the request under way, what is still to be sent, what has come.
        self._under_way: dict[int, int] = {}
        self._unsent: dict[int, bytes] = {}
        self._come: dict[int, bytes] = {}
        self.sent_s = [0.0] * len(due)
        self.took_s = [0.0] * len(due)
        self.status = [LOST] * len(due)

    def run(self) -> None:
        began_s = self._began_s = time.perf_counter()
        due, last, at = self._due, len(self._due), 0
        end_s = (due[-1] if due else 0.0) + PATIENCE_S
        while at < last or self._under_way:
            now_s = time.perf_counter() - began_s
            while at < last and due[at] <= now_s:
                self._send(at, now_s)
                at += 1
            if now_s > end_s:
                break
            wait_s = min(due[at] - now_s, 0.01) if at < last else 0.01
            # epoll waits whole milliseconds; the rest is polled away.
            for number, _ in self._poll.poll(wait_s if wait_s >= 0.001 else 0, 4096):
                self._heard(number)
        for connection in self._sockets.values():
            connection.close()
        self._poll.close()

    def _send(self, at: int, now_s: float) -> None:
        connection = self._free.pop() if self._free else self._open()
        if connection is None:
            self.status[at] = UNSENT
            return
        self.sent_s[at] = now_s
        message = self._messages[self._chosen[at]]
        number = connection.fileno()
        self._under_way[number] = at
        self._push(connection, number, message)

    def _push(self, connection: socket.socket, number: int, message: bytes) -> None:
        try:
            sent = connection.send(message)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(number)
            return
        if sent < len(message):
            self._unsent[number] = message[sent:]
            self._poll.modify(number, select.EPOLLIN | select.EPOLLOUT)

    def _open(self) -> socket.socket | None:
        if not self._left:
            return None
        self._left -= 1
        connection = socket.socket()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        connection.connect_ex(self._address)
        number = connection.fileno()
        self._sockets[number] = connection
        self._poll.register(number, select.EPOLLIN)
        return connection

    def _heard(self, number: int) -> None:
        connection = self._sockets.get(number)
        if connection is None:
            return
        if number in self._unsent:
            rest = self._unsent.pop(number)
            self._poll.modify(number, select.EPOLLIN)
            self._push(connection, number, rest)
        try:
            got = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if not got:
            self._close(number)
            return
        come = self._come.pop(number, b"") + got
        head = come.find(b"\r\n\r\n")
        length = come.find(b"content-length: ", 0, head) + 16
        if head < 0 or len(come) < head + 4 + int(come[length : come.index(b"\r", length)]):
            self._come[number] = come
            return
        at = self._under_way.pop(number, None)
        if at is not None:
            self.took_s[at] = time.perf_counter() - self._began_s - self._due[at]
            self.status[at] = int(come[9:12])
        if come.find(b"connection: close", 0, head) < 0:
            self._free.append(connection)
        else:
            self._close(number)

    def _close(self, number: int) -> None:
        """A connection has ended; a request that was under way on it is lost."""
        self._under_way.pop(number, None)
        self._unsent.pop(number, None)
        self._come.pop(number, None)
        connection = self._sockets.pop(number)
        if connection in self._free:
            self._free.remove(connection)
        self._poll.unregister(number)
        connection.close()
        self._left += 1
