"""Server processes for the benchmarks: the gateway, and the bare apps under the same uvicorn."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

# Warming up runs every batch size of every variant, at low priority.
_START_S = 300.0
_PORTS = 4


@contextmanager
def gateway(models: Path, *, lanes: int, options: Sequence[str] = ()) -> Iterator[str]:
    """`gearshift serve` with its defaults but for the lanes, and further options; yields its
    address when ready."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("gearshift")),
        *("serve", "--models", str(models), "--port", str(port), "--lanes", str(lanes)),
        *options,
    ]
    with _running(command, f"http://127.0.0.1:{port}", "/v2/health/ready") as address:
        yield address


@contextmanager
def bare(app: str) -> Iterator[str]:
    """An app of `tests.bench.bare` under uvicorn, set up as the gateway sets it up."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", f"tests.bench.bare:{app}", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]
    with _running(command, f"http://127.0.0.1:{port}", "/") as address:
        yield address


@contextmanager
def _running(command: Sequence[str], address: str, ready: str) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ))
    try:
        _await(process, address + ready)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    give_up_s = time.monotonic() + _START_S
    while time.monotonic() < give_up_s:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it was ready")
        try:
            # A bare app has no such page, and answers all the same.
            if httpx.get(url, timeout=5).status_code in (200, 404):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{url} did not answer within {_START_S:.0f} s")


def free_port() -> int:
    """The first of a few free ports in a row: servers take the next ones for gRPC and the like.

    Below the range that the kernel gives to clients, one of which could take it in between.
    """
    while True:
        first = random.randrange(20_000, 32_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + _PORTS):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
