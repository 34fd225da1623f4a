"""Programs in a process of the lane's own: an engine that crashes or hangs takes nobody along.

A batch's inputs are laid together straight into memory that both processes share, and its outputs
are copied out of it once (`gateway.execution.arena`); who should look is told by a socket. All
variants of the lane live in the one process, which is started anew when it ends, and its programs
loaded again.

Needs Linux: `memfd_create`, and a process that ends with its parent.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engines import EngineError, Program, Tensor, Tensors
from gateway.execution.arena import Arena, end_of
from gateway.execution.lane_wire import Ended, receive, send
from gateway.hosts import Host, LaneLost, serves_lane
from router.card import VariantCard

_LOG = logging.getLogger(__name__)

# A process that was killed, or whose pipes were closed, has ended by then.
_ENDING_S = 5.0
# What loads or warms up for longer hangs. Nothing else can be loaded meanwhile.
_LOADING_S = 600.0


class _Channel:
    """One way to the process, used by one thread at a time."""

    def __init__(self, patience_s: float | None = None) -> None:
        self._lock = threading.Lock()
        self._socket, self.theirs = socket.socketpair()
        self._socket.settimeout(patience_s)
        self.arena = Arena()

    def call(self, *message: object) -> Any:
        """The answer to one message.

        Raises:
            EngineError: it is an error.
            LaneLost: there will be none.
        """
        with self._lock:
            return self._call(message)

    def infer(self, number: int, inputs: Tensors) -> dict[str, Tensor]:
        """As `Program.infer`, and as `call`."""
        with self._lock:
            given = self.arena.put(inputs)
            answered = self._call(("infer", number, given))
            outputs = self.arena.get(answered, copied=True)
            self.arena.release(max(end_of(given), end_of(answered)))
            return outputs

    def _call(self, message: Sequence[object]) -> Any:
        try:
            send(self._socket, message)
            status, value = receive(self._socket)
        except Ended:
            raise LaneLost("the lane's process ended") from None
        if status == "error":
            raise EngineError(value)
        return value

    def close(self) -> None:
        for end in (self._socket, self.theirs):
            end.close()
        self.arena.close()


class _Child:
    """The process and the ways to it: the first for batches, the second for loading."""

    def __init__(self) -> None:
        self.work, self.beside = _Channel(), _Channel(_LOADING_S)
        watched, self._life = os.pipe()
        files = [watched]
        for channel in (self.work, self.beside):
            files += [channel.theirs.fileno(), channel.arena.file]
        # What this process can import, that one can, wherever it was started.
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway.execution.lane_process", *map(str, files)],
            pass_fds=files,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        os.close(watched)
        for channel in (self.work, self.beside):
            channel.theirs.close()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def how(self) -> str:
        """How it ended; one that only does not answer is ended now."""
        try:
            code = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "for it did not answer"
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        if self._life < 0:
            return
        os.close(self._life)
        self._life = -1
        self.kill()
        self._process.wait(_ENDING_S)
        for channel in (self.work, self.beside):
            channel.close()


class _Program:
    """A program in the lane's process."""

    def __init__(
        self,
        lane: _Lane,
        number: int,
        card: VariantCard,
        verify: Callable[[], None],
        *how: object,
    ) -> None:
        self.card = card
        self.absent = ""
        self._lane = lane
        self._number = number
        self._verify = verify
        self._how = how

    def load(self) -> None:
        """Have it loaded."""
        folder, threads, trusted = self._how
        text = self.card.model_dump_json()
        self._lane.child.beside.call("load", self._number, str(folder), text, threads, trusted)

    def load_again(self) -> None:
        """Have it loaded into a new process, of the same files."""
        self._verify()
        self.load()
        try:
            self._verify()
        except EngineError:
            self._lane.child.beside.call("close", self._number)
            raise

    def room(
        self, wanted: Iterable[tuple[str, np.dtype[Any], tuple[int, ...]]]
    ) -> dict[str, Tensor]:
        """Memory for the inputs of the next `infer`, to be filled by the lane's thread."""
        return self._lane.child.work.arena.room(wanted)

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        if self.absent:
            raise EngineError(self.absent)
        child = self._lane.child
        channel = child.work if serves_lane() else child.beside
        try:
            return channel.infer(self._number, inputs)
        except LaneLost:
            raise LaneLost(f"the lane's process ended {child.how}") from None

    def kernels(self) -> dict[str, int]:
        return dict(self._lane.child.beside.call("kernels", self._number))

    def close(self) -> None:
        if self._lane.forget(self):
            with contextlib.suppress(LaneLost):  # and the program with it
                self._lane.child.beside.call("close", self._number)


class _Lane:
    def __init__(self) -> None:
        self.child = _Child()
        self._numbers = itertools.count()
        self._programs: list[_Program] = []
        # Loading and restoring wait for each other; batches do not.
        self._changing = threading.Lock()

    def load(
        self,
        folder: Path,
        card: VariantCard,
        *,
        threads: int,
        trusted: bool,
        verify: Callable[[], None] = lambda: None,
    ) -> Program:
        program = _Program(self, next(self._numbers), card, verify, folder, threads, trusted)
        with self._changing:
            if self.child.ended:
                self._start_again()
            try:
                program.load()
            except LaneLost:
                raise EngineError(
                    f"the lane's process ended {self.child.how} while it was loaded"
                ) from None
            self._programs.append(program)
        return program

    def forget(self, program: _Program) -> bool:
        """Whether it was there."""
        if program not in self._programs:
            return False
        self._programs.remove(program)
        return not self.child.ended

    def give_up(self, program: Program | None) -> None:
        del program
        self.child.kill()

    def restore(self) -> Sequence[tuple[Program, VariantCard]]:
        with self._changing:
            return self._start_again()

    def _start_again(self) -> list[tuple[Program, VariantCard]]:
        """A new process with the programs of the old one. One that cannot be loaded any more is
        absent and keeps the others from nothing, unless there is no other."""
        self.child.close()
        self.child = _Child()
        programs = list(self._programs)
        for program in programs:
            program.absent = ""
        left = list(programs)
        while left:
            program = left[0]
            try:
                program.load_again()
                left.pop(0)
                continue
            except LaneLost:
                program.absent = f"the lane's process ended {self.child.how} while it was loaded"
                self.child.close()
                self.child = _Child()
                left = [other for other in programs if not other.absent]
            except EngineError as error:
                program.absent = f"it cannot be loaded again: {error}"
                _LOG.error("%s/%s: %s", program.card.model, program.card.variant, program.absent)
                left.pop(0)
        restored = [program for program in programs if not program.absent]
        if programs and not restored:
            raise EngineError(programs[0].absent)
        return [(program, program.card) for program in restored]

    def close(self) -> None:
        self.child.close()


def open(lane: int) -> Host:
    """A host for the lane of that number; its process starts now."""
    del lane
    return _Lane()
