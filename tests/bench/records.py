"""What the access log and traces cost: the same gateway with and without them, round after round.

`make bench-log`. The engine does nothing, so that all there is to slow down is the
gateway's own work. Ratios are of the same round, to the server that records nothing; a second one
that records nothing either says how far two equal servers differ here. What a request takes of the
cores is measured too: on a machine that is busy otherwise, it says more than throughput. Traces go
to a collector in this very process, which takes its part of the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from compressors import machine
from tests.bench import pages, servers
from tests.bench.load import Figures, Post, run
from tests.bench.overhead import post
from tests.e2e.collector import Collector
from tests.stores import noop_store

_PAGE = Path("docs/how-to/logs.md")
_ROUNDS, _SECONDS, _CONNECTIONS = 6, 3.0, 32
_NOTHING = "nothing"
_SAMPLED = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}


class _Round(NamedTuple):
    """One measured interval, and what the server's process used of the cores for a request."""

    figures: Figures
    cpu_us: float


def records(*, rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    """Requests per second and latency of each server, with its ratios to the first."""
    image = np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        models = Path(folder, "models")
        noop_store(models)
        collector = stack.enter_context(Collector())
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        wanted: dict[str, tuple[list[str], Mapping[str, str]]] = {
            _NOTHING: ([], {}),
            "nothing, once more": ([], {}),
            "access log, JSON": (_access(folder, "json"), {}),
            "access log, text": (_access(folder, "text"), {}),
            "traces of 1 %": (["--tracing"], environment | _SAMPLED),
            "traces of all": (["--tracing"], environment),
        }
        posts: dict[str, Post] = {}
        processes: dict[str, psutil.Process] = {}
        for name, (options, more) in wanted.items():
            os.environ.update(more)
            address = stack.enter_context(servers.gateway(models, lanes=1, options=options))
            for variable in more:
                del os.environ[variable]
            posts[name] = post(address, image, binary=True)
            processes[name] = max(psutil.Process().children(), key=lambda one: one.create_time())
            run(posts[name], connections=connections, seconds=1)  # to warm up, not counted
        figures: dict[str, list[_Round]] = {name: [] for name in posts}
        for number in range(rounds):
            # Each is the first as often as the last.
            order = list(posts)[number % len(posts) :] + list(posts)[: number % len(posts)]
            for name in order:
                used_s = sum(processes[name].cpu_times()[:2])
                found = run(posts[name], connections=connections, seconds=seconds)
                used_s = sum(processes[name].cpu_times()[:2]) - used_s
                requests = found.requests_per_second * seconds
                figures[name].append(_Round(found, used_s / requests * 1e6))
    return {name: _summary(found, figures[_NOTHING]) for name, found in figures.items()}


def _access(folder: str, kind: str) -> list[str]:
    file = Path(folder, f"access.{kind}")
    return ["--access-log", "all", "--access-log-file", str(file), "--log-format", kind]


def _summary(rounds: list[_Round], baseline: list[_Round]) -> dict[str, float]:
    pairs = list(zip(rounds, baseline, strict=True))
    found = [one.figures for one in rounds]
    ratios = [
        mine.figures.requests_per_second / theirs.figures.requests_per_second
        for mine, theirs in pairs
    ]
    return {
        "cpu_us": statistics.median(one.cpu_us for one in rounds),
        "cpu_ratio": statistics.median(mine.cpu_us / theirs.cpu_us for mine, theirs in pairs),
        "requests_per_second": statistics.median(f.requests_per_second for f in found),
        "p50_ms": statistics.median(f.p50_ms for f in found),
        "p99_ms": statistics.median(f.p99_ms for f in found),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "errors": sum(f.errors for f in found),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.records", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--seconds", type=float, default=_SECONDS)
    parser.add_argument("--connections", type=int, default=_CONNECTIONS)
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    wanted = parser.parse_args()
    ran = pages.here()
    found = records(rounds=wanted.rounds, seconds=wanted.seconds, connections=wanted.connections)
    text = (
        f"{ran} The load generator shares the cores. {wanted.rounds} rounds of {wanted.seconds:g} "
        f"s, {wanted.connections} connections.\n\n{_table(found)}"
    )
    print(text)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    wanted.out.mkdir(parents=True, exist_ok=True)
    results = {"date": date, "machine": machine.describe().model_dump(), "records": found}
    file = wanted.out / f"records-{date.replace(':', '')}.json"
    file.write_text(json.dumps(results, indent=1))
    print(f"figures in {file}")
    asked = (wanted.rounds, wanted.seconds, wanted.connections)
    whole = asked == (_ROUNDS, _SECONDS, _CONNECTIONS)
    pages.keep(wanted.docs, _PAGE, "make bench-log", text, whole=whole)


def _table(found: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        (
            name,
            f"{row['requests_per_second']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['ratio']:.2f} [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}]",
            f"{row['cpu_us']:.0f}",
            f"{row['cpu_ratio']:.2f}",
            f"{row['errors']:.0f}",
        )
        for name, row in found.items()
    ]
    head = (
        *("recorded", "requests/s", "p50 ms", "p99 ms", "throughput, median [lowest, highest]"),
        *("CPU µs a request", "CPU, median", "errors"),
    )
    return pages.table(head, rows)


if __name__ == "__main__":
    main()
