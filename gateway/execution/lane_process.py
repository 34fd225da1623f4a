"""A lane's process: holds one lane's programs, and does what `gateway.execution.lane_wire` lists.

    python -m gateway.execution.lane_process LIFE SOCKET MEMORY [SOCKET MEMORY]...

The arguments are file descriptors. Each socket has a thread, the first the main one: batches come
by the first socket, loading and warming up by the second, at a lower priority.

It lives as long as the gateway. Signals to the process group are for the gateway alone, which lets
running batches finish. When the gateway has gone, however it went, the other end of the pipe LIFE
closes, and the kernel ends this process by SIGIO (`O_ASYNC`, fcntl(2)), even if an engine hangs in
its own code and holds the interpreter's lock.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway import engines
from gateway.engines import EngineError, Program
from gateway.execution.arena import Arena, end_of
from gateway.execution.lane_wire import Ended, receive, send
from router.card import VariantCard

_LESS_URGENT = 10


class _Programs:
    """Those that are loaded, by number. A thread loads one while another runs others."""

    def __init__(self) -> None:
        self._loaded: dict[int, Program] = {}

    def answer(self, message: Sequence[Any], arena: Arena) -> Any:
        """Do what one message asks for."""
        what, number, *rest = message
        if what == "infer":
            (placed,) = rest
            inputs = arena.get(placed, copied=False)
            outputs = self._program(number).infer(inputs)
            return arena.put(outputs, after=end_of(placed))
        if what == "load":
            folder, text, threads, trusted = rest
            card = VariantCard.model_validate_json(text)
            self._loaded[number] = engines.get(card.engine.name).load(
                Path(folder), card, threads=threads, trusted=trusted
            )
            return None
        if what == "kernels":
            return self._program(number).kernels()
        closing = self._loaded.pop(number, None)
        if closing is not None:
            closing.close()
        return None

    def _program(self, number: int) -> Program:
        try:
            return self._loaded[number]
        except KeyError:
            raise EngineError("the program is closed") from None


def _serve(programs: _Programs, channel: socket.socket, arena: Arena) -> None:
    while True:
        try:
            message = receive(channel)
        except Ended:
            os._exit(0)
        reply: list[Any]
        try:
            reply = ["ok", programs.answer(message, arena)]
        except Exception as error:  # engines have no common base for what they raise
            reply = ["error", str(error) if isinstance(error, EngineError) else repr(error)]
        del message
        try:
            send(channel, reply)
        except Ended:
            os._exit(0)


def _serve_beside(programs: _Programs, channel: socket.socket, arena: Arena) -> None:
    # On Linux a priority is a thread's own.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LESS_URGENT)
    _serve(programs, channel, arena)


def _end_with(life: int) -> None:
    """End this process when the other end of the pipe `life` closes."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([life], [], [], 0)[0]:
        os._exit(0)  # it closed before anybody watched


def main(arguments: Sequence[str]) -> None:
    """Serve until the gateway has gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    life, *files = map(int, arguments)
    _end_with(life)
    programs = _Programs()
    first, *others = [
        (programs, socket.socket(fileno=channel), Arena(memory))
        for channel, memory in zip(files[::2], files[1::2], strict=True)
    ]
    for other in others:
        threading.Thread(target=_serve_beside, args=other, daemon=True).start()
    _serve(*first)


if __name__ == "__main__":
    main(sys.argv[1:])
