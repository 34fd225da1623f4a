"""One worker as its supervisor sees it: a process on cores of its own, and what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

from gateway.processes.cores import Share
from gateway.processes.worker import Order

_COMMAND = (sys.executable, "-m", "gateway.cli.worker")


class WorkerProcess:
    """One worker's process, and what it says."""

    def __init__(self, order: Order, share: Share) -> None:
        self.link, theirs = socket.socketpair()
        with theirs, _bound_to(share.mask), _held_back(signal.SIGHUP):
            # A terminal's Ctrl-C goes to a whole group: this one is stopped by the supervisor.
            self._popen = subprocess.Popen(
                _COMMAND, stdin=theirs.fileno(), stdout=subprocess.PIPE, process_group=0
            )
        assert self._popen.stdout is not None
        self.stdout: IO[bytes] = self._popen.stdout
        # What it started may hold the other end when it has ended itself.
        os.set_blocking(self.stdout.fileno(), False)
        self.pid = self._popen.pid
        self._heard: dict[int, bytes] = {}
        self.tell(order.model_dump_json().encode() + b"\n")

    def tell(self, line: bytes) -> None:
        """Send one line; nothing happens where it has ended."""
        with contextlib.suppress(OSError):
            self.link.sendall(line)

    def lines(self, descriptor: int) -> list[str]:
        """The whole lines that came over `descriptor` since it was last asked."""
        try:
            came = os.read(descriptor, 1 << 16)
        except OSError:
            return []
        *lines, rest = (self._heard.get(descriptor, b"") + came).split(b"\n")
        self._heard[descriptor] = rest
        return [line.decode(errors="replace") for line in lines]

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens where it has ended."""
        self._popen.send_signal(number)

    def code(self) -> int | None:
        """Its exit code once it has ended; negative for a signal's number."""
        return self._popen.poll()

    def close(self) -> None:
        """Let go of what it spoke through."""
        self.link.close()
        self.stdout.close()


@contextlib.contextmanager
def _bound_to(mask: frozenset[int]) -> Iterator[None]:
    """Have processes that are started meanwhile run on these cores alone."""
    if not mask:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, mask)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Have a signal wait in processes that are started meanwhile, until they ask for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
