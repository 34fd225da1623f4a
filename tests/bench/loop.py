"""Processor time of a request on the event loop's thread: no sockets, no load generator.

    make bench-loop

The app is served in this process. Requests of 32 connections are handed to its HTTP protocol in one
turn of the loop, the lane runs an engine that does nothing, and the thread's own clock says what
it took. The least of many turns is what the code costs where nothing else is in the way of it,
which makes two commits comparable on a machine that does other work as well.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
import uvloop
from rich.console import Console
from rich.table import Table
from uvicorn.server import ServerState

from gateway import settings
from gateway.app import create_app
from gateway.http.limits import limited
from router.card import TensorSpec
from tests.bench import pages
from tests.bench.load import Post
from tests.bench.overhead import post
from tests.stores import noop_store, write_variant

_PAGE = Path("docs/benchmarks/performance.md")
_CONNECTIONS = 32
_TURNS, _ROUNDS = 40, 40
_FORMS = ("binary", "JSON")
_IMAGE = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 28, 28))
_LOGITS = TensorSpec(name="logits", datatype="FP32", shape=(-1, 10))


class _Sink(asyncio.Transport):
    """A connection whose other side is a function of what is written."""

    def __init__(self, written: Any) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._written = written

    def write(self, data: Any) -> None:
        self._written(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def message(asked: Post) -> bytes:
    """The whole request as HTTP."""
    path = "/" + asked.url.split("/", 3)[3]
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in asked.headers.items()]
    head = "\r\n".join([*lines, f"Content-Length: {len(asked.body)}", "", ""])
    return head.encode() + asked.body


async def taken_us(models: Path, request: bytes, *, rounds: int) -> list[float]:
    """Microseconds of the loop's thread for one request, of each round of so many turns."""
    settled = asyncio.Event()
    chosen = settings.load({"models": models, "lanes": 1, "grpc_port": "off", "port": 0}, None)
    app = create_app(chosen, lambda _: settled.set())
    config = uvicorn.Config(
        app, loop="uvloop", http=limited(64 << 10, 60.0), ws="none", log_config=None,
        access_log=False, server_header=False, date_header=False,
    )  # fmt: skip
    config.load()
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    answers: list[bytes] = []

    def written(data: bytes) -> None:
        answers.append(data)
        if len(answers) == _CONNECTIONS:
            done.set_result(None)

    async with app.router.lifespan_context(app):
        await settled.wait()
        gc.collect()
        gc.freeze()
        protocols: list[Any] = []
        for _ in range(_CONNECTIONS):
            protocol = config.http_protocol_class(
                config=config, server_state=ServerState(), app_state={}
            )
            protocol.connection_made(_Sink(written))
            protocols.append(protocol)
        found = []
        for _ in range(rounds + 1):
            begun_s = time.thread_time()
            for _ in range(_TURNS):
                answers.clear()
                done = loop.create_future()
                for protocol in protocols:
                    protocol.data_received(request)
                await done
            spent_s = time.thread_time() - begun_s
            found.append(spent_s / (_TURNS * _CONNECTIONS) * 1e6)
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers), answers[0][:80]
    return found[1:]  # the first warms up


def _stores(work: Path) -> dict[int, Path]:
    """The model `noop` with one variant, and with eight."""
    one, eight = work / "one", work / "eight"
    write_variant(
        one, "noop", "fp32", latency_ms_at_1=0.1, latency_ms_at_32=0.1,
        inputs=(_IMAGE,), outputs=(_LOGITS,),
    )  # fmt: skip
    noop_store(eight)
    return {1: one, 8: eight}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=_ROUNDS)
    options.add_argument("--docs", type=Path, help="a page to write, also of a short run")
    wanted = options.parse_args(arguments)
    ran = pages.here()
    image = np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32)
    table = Table("request", "variants", "least µs", "median µs")
    with tempfile.TemporaryDirectory() as folder:
        for variants, models in _stores(Path(folder)).items():
            for form in _FORMS:
                request = message(post("http://127.0.0.1", image, binary=form == "binary"))
                with redirect_stdout(StringIO()):
                    found = uvloop.run(taken_us(models, request, rounds=wanted.rounds))
                least, middle = min(found), statistics.median(found)
                table.add_row(form, str(variants), f"{least:.0f}", f"{middle:.0f}")
    Console().print(table)
    text = f"{ran}\n\n{pages.of_rich(table)}"
    pages.keep(wanted.docs, _PAGE, "make bench-loop", text, whole=wanted.rounds == _ROUNDS)


if __name__ == "__main__":
    main()
