"""A peer as a process: started on free ports, awaited, checked, and gone with all its children."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.bench.load import Post
from tests.bench.peers import environments
from tests.bench.peers.contract import Ask, Form, Peer
from tests.bench.servers import free_port

_START_S, _END_S = 90.0, 20.0
_CLOSE = 1e-3


@dataclass(frozen=True)
class Running:
    """A peer that answers."""

    peer: Peer
    port: int
    process: subprocess.Popen[bytes]

    def post(self, ask: Ask) -> Post:
        """`ask`, as the load generator takes it."""
        return Post(f"http://127.0.0.1:{self.port}{ask.path}", ask.body, ask.headers)

    def check(self, form: Form, row: bytes, expected: list[float]) -> None:
        """Ask once and compare: fast answers count only when they are right.

        Raises:
            RuntimeError: another status than 200, or other numbers.
        """
        post = self.post(form.ask(row))
        give_up_s = time.monotonic() + 30
        while True:
            answer = httpx.post(post.url, content=post.body, headers=dict(post.headers), timeout=30)
            # Some say that they are ready before their model is.
            if answer.status_code == 200 or time.monotonic() > give_up_s:
                break
            time.sleep(0.2)
        if answer.status_code != 200:
            raise RuntimeError(f"{self.peer.name}: {answer.status_code} {answer.text[:500]}")
        found = list(form.logits(answer.headers, answer.content))
        if len(found) != len(expected) or not all(
            math.isclose(a, b, rel_tol=_CLOSE, abs_tol=_CLOSE)
            for a, b in zip(found, expected, strict=True)
        ):
            raise RuntimeError(f"{self.peer.name}: expected {expected}, got {found}")

    def memory_mb(self) -> float:
        """What it and its children take together, shared pages counted once: their PSS."""
        total = 0
        for each in [psutil.Process(self.process.pid), *_children(self.process.pid)]:
            with contextlib.suppress(psutil.Error, OSError):
                total += each.memory_full_info().pss
        return total / 1e6


@contextlib.contextmanager
def running(peer: Peer, binaries: Path, work: Path) -> Iterator[Running]:
    """Start `peer`; it is ready when this yields.

    Raises:
        RuntimeError: it ended, or was not ready in time, or whatever is done with it raises that;
            the message then holds the end of its log too.
    """
    port = free_port()
    log = work / f"{peer.name.lower().replace(' ', '')}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            list(peer.command(binaries, work, port)),
            env=environments.environment(peer),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await(process, f"http://127.0.0.1:{port}{peer.ready}")
        yield Running(peer, port, process)
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from error
    finally:
        _end(process)


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    give_up_s = time.monotonic() + _START_S
    while time.monotonic() < give_up_s and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer 200 (exit code {process.poll()})")


def _end(process: subprocess.Popen[bytes]) -> None:
    # Some start their helpers in sessions of their own, and forget them.
    left = _children(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    psutil.wait_procs(left, timeout=2)
    for each in left:
        with contextlib.suppress(psutil.Error):
            each.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(left, timeout=5)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []
