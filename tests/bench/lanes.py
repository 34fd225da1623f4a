"""Thread lanes against process lanes: what a process of its own costs, in time and memory.

    python -m tests.bench.lanes [--models STORE --model digits --variant fp32]

Two servers, one of each kind, take turns under the same load, round after round; the ratios are of
the same round. First with the engine that does nothing, where all that is left is the way to the
lane and back; then with a real network, where a store is given. Before that, one call of a program
by itself, without a server.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil

from gateway import hosts
from gateway.hosts import serve_lane
from gateway.lifecycle import catalog
from router.card import VariantCard
from tests.bench import servers
from tests.bench.load import Figures, Post, run
from tests.bench.throughput import _post
from tests.stores import noop_store

KINDS = ("thread", "process")


def calls_us(folder: Path, card: VariantCard, *, seconds: float) -> dict[int, dict[str, float]]:
    """Median microseconds of one `Program.infer`, by rows and kind; the kinds take turns."""
    serve_lane()
    spec = card.inputs[0]
    found: dict[int, dict[str, float]] = {}
    with ExitStack() as stack:
        programs = {}
        for kind in KINDS:
            host = hosts.open_one(kind, 0)
            stack.callback(host.close)
            programs[kind] = host.load(folder, card, threads=1, trusted=False)
        for rows in (1, 32):
            inputs = {spec.name: np.random.default_rng(0).random((rows, *spec.shape[1:]), "f4")}
            taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s:
                for kind, program in programs.items():
                    begun = time.perf_counter()
                    program.infer(inputs)
                    taken[kind].append((time.perf_counter() - begun) * 1e6)
            found[rows] = {kind: statistics.median(each) for kind, each in taken.items()}
    return found


def served(
    models: Path, model: str, variant: str, card: VariantCard, *, rounds: int, seconds: float
) -> tuple[dict[int, dict[str, list[Figures]]], dict[str, float]]:
    """Figures by connections and kind, and memory in MB of each server with its lanes."""
    spec = card.inputs[0]
    figures: dict[int, dict[str, list[Figures]]] = {}
    with ExitStack() as stack:
        posts: dict[str, Post] = {}
        for kind in KINDS:
            options = ("--lane-kind", kind)
            address = stack.enter_context(servers.gateway(models, lanes=1, options=options))
            posts[kind] = _post(address, model, variant, spec.name, spec.shape[1:], 1)
        for connections in (1, 32):
            figures[connections] = {kind: [] for kind in KINDS}
            for number in range(rounds + 1):
                for kind, asked in posts.items():
                    measured = run(asked, connections=connections, seconds=seconds)
                    if number:  # the first warms up
                        figures[connections][kind].append(measured)
        memory = {kind: _memory_mb(post) for kind, post in posts.items()}
    return figures, memory


def _memory_mb(post: Post) -> float:
    """What the server of `post` and its children take for themselves (PSS)."""
    port = post.url.split(":")[2].split("/")[0]
    (server,) = [
        process for process in psutil.Process().children() if port in process.cmdline()
    ]  # fmt: skip
    family = [server, *server.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) / 1e6


def _table(
    title: str, figures: Mapping[int, Mapping[str, Sequence[Figures]]], memory: Mapping[str, float]
) -> None:
    print(f"\n{title}")
    print(f"{'connections':>12} {'kind':>8} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'ratio':>6}")
    for connections, by_kind in figures.items():
        base = by_kind["thread"]
        for kind, measured in by_kind.items():
            ratios = [
                own.requests_per_second / other.requests_per_second
                for own, other in zip(measured, base, strict=True)
            ]
            assert not sum(one.errors for one in measured)
            print(
                f"{connections:>12} {kind:>8}"
                f" {statistics.median(one.requests_per_second for one in measured):>8.0f}"
                f" {statistics.median(one.p50_ms for one in measured):>8.3f}"
                f" {statistics.median(one.p99_ms for one in measured):>8.2f}"
                f" {statistics.median(ratios):>6.2f}"
            )
    print("memory, MB:", ", ".join(f"{kind} {mb:.0f}" for kind, mb in memory.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="a store with a real network")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--variant", default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        noop_store(Path(folder))
        chosen = [(Path(folder), "noop", "fp32")]
        if asked.models is not None:
            chosen.append((asked.models, asked.model, asked.variant))
        for models, model, variant in chosen:
            entry = catalog.usable(models).models[model][variant]
            print(f"\n{model}/{variant}, one call, µs, median", flush=True)
            for rows, by_kind in calls_us(entry.folder, entry.card, seconds=asked.seconds).items():
                print(f"{rows:>4} rows: " + ", ".join(f"{k} {us:.0f}" for k, us in by_kind.items()))
            figures, memory = served(
                models, model, variant, entry.card, rounds=asked.rounds, seconds=asked.seconds
            )
            _table(f"{model}/{variant}, served on one lane", figures, memory)


if __name__ == "__main__":
    main()
