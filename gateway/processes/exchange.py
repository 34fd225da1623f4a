"""What the workers of one server tell each other: their metrics, over Unix sockets.

A scrape reaches any one worker. It asks the others, each on the socket that `Place.socket_of` names
in a folder that nobody else may enter, and shows the series of all of them, told apart by a label
`worker`. Whoever connects is answered at once with every series, as JSON, and nothing is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from gateway.processes.worker import Place

_LOG = logging.getLogger(__name__)

# A worker whose loop is free answers within milliseconds; a scrape gives up after ten seconds.
_PATIENCE_S = 1.0
_LABEL = "worker"
_UP = "gearshift_worker_up"


@contextlib.asynccontextmanager
async def answering(registry: CollectorRegistry, path: Path) -> AsyncIterator[None]:
    """Answer the other workers on the socket at `path`."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Collecting takes milliseconds, which are another thread's.
            writer.write(await asyncio.to_thread(dump, registry))
            await writer.drain()
        except OSError as error:
            _LOG.warning("another worker went away while it was told the metrics: %s", error)
        finally:
            writer.close()

    # What a worker in the same place left behind when it was killed.
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(answer, path)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


class Everybody:
    """The series of all workers, as `prometheus_client` collects them.

    Args:
        own: the registry of this worker.
    """

    def __init__(self, own: CollectorRegistry, place: Place) -> None:
        self._own = own
        self._place = place

    def collect(self) -> Iterable[Metric]:
        """Every family, with the label `worker` on each series; blocks for a second at most.

        Of a worker that does not answer there is one: `gearshift_worker_up`, which is 0.
        """
        order = self._place.order
        others = [number for number in range(order.count) if number != order.number]
        told: dict[int, Any] = {order.number: json.loads(dump(self._own))}
        told |= _asked({number: self._place.socket_of(number) for number in others})
        families: dict[str, Metric] = {}
        for number in sorted(told):
            for name, text, kind, samples in told[number]:
                family = families.setdefault(name, Metric(name, text, kind))
                for sample, labels, value, *traced in samples:
                    exemplar = Exemplar(*traced) if traced else None
                    family.add_sample(
                        sample, {_LABEL: str(number), **labels}, value, None, exemplar
                    )
        for number in others:
            if number not in told:
                families[_UP].add_sample(_UP, {_LABEL: str(number)}, 0.0)
        return families.values()


def dump(registry: CollectorRegistry) -> bytes:
    """Every series: a list of families, [name, text, type, [[name, labels, value], ...]].

    Behind the value come an exemplar's labels, value and time, where there is one.
    """
    families = [
        [
            family.name,
            family.documentation,
            family.type,
            [
                [sample.name, sample.labels, sample.value, *(sample.exemplar or ())]
                for sample in family.samples
            ],
        ]
        for family in registry.collect()
    ]
    return json.dumps(families).encode()


def _asked(paths: dict[int, Path]) -> dict[int, Any]:
    """What each worker told, by number; without those that did not."""
    until_s = time.monotonic() + _PATIENCE_S
    told: dict[int, Any] = {}
    with contextlib.ExitStack() as open_sockets:
        asked: dict[int, socket.socket] = {}
        # All are asked before the first is listened to, so that they collect side by side.
        for number, path in paths.items():
            one = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
            with contextlib.suppress(OSError):
                one.settimeout(max(0.001, until_s - time.monotonic()))
                one.connect(str(path))
                asked[number] = one
        for number, one in asked.items():
            with contextlib.suppress(OSError, ValueError):
                told[number] = json.loads(_read(one, until_s))
    return told


def _read(one: socket.socket, until_s: float) -> bytes:
    """Everything up to the end.

    Raises:
        OSError: it did not come in time.
    """
    pieces: list[bytes] = []
    while True:
        one.settimeout(max(0.001, until_s - time.monotonic()))
        piece = one.recv(1 << 16)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
