"""Idle connections: `python -m tests.drills.idle`, or `make idle`.

Ten thousand clients connect and say nothing, or one request and then nothing; those who do ask
are answered as before.
"""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gateway.processes.open_files import raise_limit
from tests.bench import pages
from tests.drills.report import PAGE, Check, passed, table
from tests.e2e.harness import Server
from tests.stores import write_three

CONNECTIONS, ASKED = 10_000, 300
_RESERVED = 600
_GET = b"GET /healthz HTTP/1.1\r\nHost: idle\r\n\r\n"


def possible(wanted: int) -> int:
    """As many connections as the system lets this process, and the server, have open."""
    return min(wanted, raise_limit() - _RESERVED)


@contextmanager
def connections(address: str, count: int) -> Iterator[list[socket.socket]]:
    """Idle connections; each second one has asked something before."""
    host, port = address.split(":")
    with ExitStack() as stack:
        made = []
        for number in range(count):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            if number % 2:
                connection.sendall(_GET)
            made.append(connection)
        for connection in made[1::2]:
            assert connection.recv(1 << 12).startswith(b"HTTP/1.1 200")
        yield made


def closed(made: list[socket.socket]) -> int:
    """How many of them the server has closed."""
    count = 0
    for connection in made:
        connection.setblocking(False)
        try:
            count += connection.recv(1) == b""
        except BlockingIOError:
            pass
        except ConnectionError:
            count += 1
    return count


def drill(wanted: int) -> list[Check]:
    """Ask before and beside as many idle connections as can be had; what came of it."""
    count = possible(wanted)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with tempfile.TemporaryDirectory() as folder:
        write_three(Path(folder))
        with Server(Path(folder)) as server:

            def live() -> tuple[int, float]:
                took, good = [], 0
                for _ in range(ASKED):
                    began_s = time.perf_counter()
                    good += server.infer().status_code == 200
                    took.append((time.perf_counter() - began_s) * 1000)
                return good, statistics.median(took)

            _, before_ms = live()
            with connections(server.address, count) as made:
                good, during_ms = live()
                gone = closed(made)
    return checks(wanted, count, most, good, before_ms, during_ms, gone)


def checks(
    wanted: int, count: int, most: int, good: int, before_ms: float, during_ms: float, gone: int
) -> list[Check]:
    """What is looked at, with what it has to be.

    Args:
        count: idle connections that there were, of those `wanted`.
        most: files that the system lets a process have open.
        good: live requests that were answered beside them, of `ASKED`.
        before_ms: the median of a live request without them, and `during_ms` beside them.
        gone: idle connections that were closed.
    """
    return [
        Check(
            "idle connections",
            f"{wanted:,}",
            f"{count:,}; this system lets a process have {most:,} open files",
        ),
        Check("live requests answered", f"{ASKED}", f"{good}", good == ASKED),
        Check("median ms of a live request", "", f"{during_ms:.2f}; before, {before_ms:.2f}"),
        Check("idle connections that were closed", "0", f"{gone:,}", gone == 0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drills.idle", description=__doc__)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {PAGE}")
    asked = parser.parse_args()
    ran = pages.here()
    found = drill(asked.connections)
    text = f"{ran}\n\n{table(found)}"
    print(text)
    whole = asked.connections == CONNECTIONS
    pages.keep(asked.docs, PAGE, "make idle", text, whole=whole)
    return 0 if passed(found) else 1


if __name__ == "__main__":
    sys.exit(main())
