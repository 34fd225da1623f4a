"""The roll-out: `python -m tests.drills.rollout`, or `make rollout`.

Two gateways behind nginx, by the file of deploy/nginx, under load of REST and gRPC. One is told to
stop (SIGTERM) and a new one started in its place, then the other; nothing fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import grpc
import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from tests.bench import pages
from tests.drills.report import PAGE
from tests.e2e.harness import Server, infer_body, until
from tests.proxies import Nginx, free_ports, nginx
from tests.stores import write_variant

SECONDS, NOTICE_S = 5.0, 1.0
# nginx sends a gRPC call again that it could not deliver, but not one that was refused: the status
# is in the answer's trailers, which it does not read. That is for clients, who bring what it takes.
RETRIES = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    # Not taken; and what came in the very moment when a port closed.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
CHANNEL = [
    # A connection of its own for each client: they would share one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": RETRIES}]})),
]
# A breath between two requests of a client, so that the load is not all that the machine can do.
_BREATH_S = 0.002


@dataclass
class Tally:
    """What came of the requests so far.

    Attributes:
        outcomes: how many, by protocol and status.
        took_ms: of those that were answered.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    took_ms: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, protocol: str, status: str, took_s: float) -> None:
        with self.lock:
            self.outcomes[protocol, status] += 1
            if status in ("200", "OK"):
                self.took_ms.append(took_s * 1000)

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.outcomes.values())

    @property
    def failed(self) -> dict[tuple[str, str], int]:
        """Those that were not answered, by protocol and status."""
        return {k: v for k, v in self.outcomes.items() if k[1] not in ("200", "OK")}


@dataclass(frozen=True)
class Step:
    """What happened, and what came of the requests meanwhile."""

    name: str
    took_s: float
    requests: int
    failed: dict[tuple[str, str], int]
    p50_ms: float
    p99_ms: float


class Load:
    """Clients of both protocols that ask one request after the other, until it is ended."""

    def __init__(self, proxy: Nginx, rest: int, rpc: int) -> None:
        self.tally = Tally()
        self._proxy = proxy
        self._ended = threading.Event()
        kinds = [self._rest] * rest + [self._grpc] * rpc
        self._threads = [threading.Thread(target=kind) for kind in kinds]

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()

    def taken(self) -> Tally:
        """What came since this was asked last."""
        taken, self.tally = self.tally, Tally()
        return taken

    def _rest(self) -> None:
        host, port = self._proxy.rest.split(":")
        connection = HTTPConnection(host, int(port), timeout=30)
        body = json.dumps(infer_body())
        while not self._ended.wait(_BREATH_S):
            began_s = time.monotonic()
            try:
                connection.request("POST", "/v2/models/echo/infer", body)
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
            except OSError as error:
                connection.close()
                status = type(error).__name__
            self.tally.count("rest", status, time.monotonic() - began_s)
        connection.close()

    def _grpc(self) -> None:
        image = triton.InferInput("image", [1, 4], "FP32")
        image.set_data_from_numpy(np.zeros((1, 4), np.float32))
        client = triton.InferenceServerClient(self._proxy.grpc, channel_args=CHANNEL)
        while not self._ended.wait(_BREATH_S):
            began_s = time.monotonic()
            try:
                client.infer("echo", [image])
                status = "OK"
            except (InferenceServerException, grpc.RpcError) as error:
                status = str(error.status() if hasattr(error, "status") else error)
            self.tally.count("grpc", status, time.monotonic() - began_s)
        client.close()


def rollout(
    folder: Path, *, steady_s: float = 2.0, rest: int = 4, rpc: int = 2, notice_s: float = NOTICE_S
) -> tuple[list[Step], list[str]]:
    """Replace two gateways under load, one after the other.

    Args:
        folder: an empty one, for the store and nginx's files.
        steady_s: how long nothing happens before, between and after.
        rest: clients of REST, and `rpc` of gRPC.
        notice_s: the gateways' `notice_seconds`.

    Returns:
        what happened step by step, and the requests that nginx sent to both.
    """
    store = folder / "models"
    write_variant(store, "echo", "fp32", delay_ms=2)
    ports = free_ports(4)
    places = [(ports[0], ports[1]), (ports[2], ports[3])]
    steps: list[Step] = []

    def started(place: tuple[int, int]) -> Server:
        return Server(store, port=place[0], grpc_port=place[1], notice_seconds=notice_s)

    with ExitStack() as stack:
        # Of its own, so that new gateways outlive the load as well.
        standing = stack.enter_context(ExitStack())
        gateways = [standing.enter_context(started(place)) for place in places]
        (folder / "nginx").mkdir()
        proxy = stack.enter_context(nginx(folder / "nginx", places))
        load = stack.enter_context(Load(proxy, rest, rpc).running())

        def step(name: str, began_s: float) -> None:
            tally = load.taken()
            took_s = time.monotonic() - began_s
            took_ms = sorted(tally.took_ms)
            p99_ms = took_ms[int(len(took_ms) * 0.99)] if took_ms else 0.0
            p50_ms = statistics.median(took_ms) if took_ms else 0.0
            steps.append(Step(name, took_s, tally.requests, tally.failed, p50_ms, p99_ms))

        def steady(name: str) -> None:
            began_s = time.monotonic()
            # As long as that, and until both protocols were answered.
            until(
                lambda: (
                    time.monotonic() - began_s > steady_s
                    and len({protocol for protocol, _ in load.tally.outcomes}) == 2
                ),
                "requests go through",
            )
            step(name, began_s)

        steady("both serve")
        for number, place in enumerate(places):
            began_s = time.monotonic()
            gateways[number].terminate()
            assert gateways[number].process.wait(60) == 0, gateways[number].log()
            step(f"gateway {number + 1} stops", began_s)
            began_s = time.monotonic()
            gateways[number] = standing.enter_context(started(place))
            step(f"gateway {number + 1} starts anew", began_s)
            steady("both serve")
        answered = gateways[0].metric("gearshift_requests_total", outcome="ok")
        assert answered > 0, "the new one is asked again"
    return steps, proxy.sent_again()


def passed(steps: Sequence[Step]) -> bool:
    """Whether there were requests, and none failed."""
    return any(one.requests for one in steps) and not any(one.failed for one in steps)


def table(steps: list[Step], again: list[str]) -> str:
    """The steps as text."""
    lines = [f"{'':26}{'s':>6}{'requests':>10}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}"]
    for one in steps:
        failed = sum(one.failed.values())
        lines.append(
            f"{one.name:26}{one.took_s:6.1f}{one.requests:10}{failed:8}"
            f"{one.p50_ms:9.1f}{one.p99_ms:9.1f}"
        )
        lines += [f"    {protocol} {status}: {n}" for (protocol, status), n in one.failed.items()]
    requests = sum(one.requests for one in steps)
    failed = sum(sum(one.failed.values()) for one in steps)
    lines.append(f"{requests} requests, {failed} failed; nginx sent {len(again)} of them twice")
    return "\n".join(lines)


def markdown(steps: list[Step], again: list[str]) -> str:
    """The steps as a table, and what came of all."""
    rows = [
        (
            one.name,
            f"{one.took_s:.1f}",
            f"{one.requests:,}",
            ", ".join(f"{protocol} {status}: {n}" for (protocol, status), n in one.failed.items())
            or "0",
            f"{one.p50_ms:.1f}",
            f"{one.p99_ms:.1f}",
        )
        for one in steps
    ]
    last = table(steps, again).splitlines()[-1]
    return pages.table(("", "s", "requests", "failed", "p50 ms", "p99 ms"), rows) + f"\n{last}."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drills.rollout", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="between two replacements")
    parser.add_argument("--notice", type=float, default=NOTICE_S, help="the gateways' notice")
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {PAGE}")
    asked = parser.parse_args()
    ran = pages.here()
    with tempfile.TemporaryDirectory() as folder:
        steps, again = rollout(Path(folder), steady_s=asked.seconds, notice_s=asked.notice)
    print(table(steps, again))
    whole = (asked.seconds, asked.notice) == (SECONDS, NOTICE_S)
    text = f"{ran}\n\n{markdown(steps, again)}"
    pages.keep(asked.docs, PAGE, "make rollout", text, whole=whole)
    return 0 if passed(steps) else 1


if __name__ == "__main__":
    sys.exit(main())
