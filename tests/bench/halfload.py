"""What the gateway adds to a request at half of its peak: everything but queue and inference.

Open loop, Poisson arrivals, an engine that does nothing, eight variants to choose among, a
deadline and a floor on each request. From each answer: the client's time from sending to the last
byte, less the queue and inference of its `Server-Timing`. A bare Starlette route at the same rate
says how much of that the loopback, the client and an HTTP server take in any case.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import load, overhead, replay, servers
from tests.stores import noop_store

_TIMING = re.compile(rb"(queue|infer);dur=([0-9.]+)")


def halfload(*, rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """By form of the request: peak and asked rate a second; p50 and p99 over all rounds, in ms, of
    the overhead and of a bare route's whole time."""
    image = np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32)
    results = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        models = Path(folder)
        noop_store(models)
        own = stack.enter_context(servers.gateway(models, lanes=1))
        bare = stack.enter_context(servers.bare("starlette_app"))
        for form in ("binary", "JSON"):
            mine = overhead.post(own, image, binary=form == "binary")
            theirs = overhead.post(bare, image, binary=form == "binary")
            load.run(mine, connections=32, seconds=2)
            peak = load.run(mine, connections=32, seconds=3).requests_per_second
            added: list[float] = []
            plain: list[float] = []
            errors = 0
            for number in range(rounds):
                due_s = replay.arrivals_s(peak / 2, seconds, number)
                answers = _asked(mine, due_s)
                errors += sum(each.status != 200 for each in answers)
                added += [_added_ms(each) for each in answers if each.status == 200]
                plain += [
                    (each.done_s - each.sent_s) * 1000
                    for each in _asked(theirs, due_s)
                    if each.status == 200
                ]
            results[form] = {
                "peak_per_second": peak,
                "asked_per_second": peak / 2,
                "p50_ms": replay.percentile(added, 0.5),
                "p99_ms": replay.percentile(added, 0.99),
                "bare_p50_ms": replay.percentile(plain, 0.5),
                "bare_p99_ms": replay.percentile(plain, 0.99),
                "errors": errors,
            }
    return results


def _asked(post: load.Post, due_s: list[float]) -> list[replay.Answer]:
    host, _, path = post.url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    request = replay.post(name, int(port), "/" + path, post.body, dict(post.headers))
    return replay.Replay(name, int(port), request, keep_heads=True).run(due_s)[0]


def _added_ms(answer: replay.Answer) -> float:
    took = sum(float(ms) for _, ms in _TIMING.findall(answer.head))
    return (answer.done_s - answer.sent_s) * 1000 - took
