"""Thread lanes against process lanes: what a process of its own costs, in time and memory.

    make bench-lanes

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
from tests.bench import pages, servers
from tests.bench.load import Figures, Post, run
from tests.bench.throughput import _post
from tests.stores import noop_store

_PAGE = Path("docs/explanation/lanes.md")
_ROUNDS, _SECONDS = 3, 3.0
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


def _rows(
    name: str,
    calls: Mapping[int, Mapping[str, float]],
    figures: Mapping[int, Mapping[str, Sequence[Figures]]],
    memory: Mapping[str, float],
) -> list[tuple[str, ...]]:
    """What is compared of one variant: thread lanes, process lanes, and their ratio."""
    rows = [
        (
            f"{name}: one call of {count} row(s), µs",
            *(f"{by_kind[kind]:.0f}" for kind in KINDS),
            f"{by_kind['process'] / by_kind['thread']:.2f}",
        )
        for count, by_kind in calls.items()
    ]
    for connections, by_kind in figures.items():
        assert not sum(one.errors for measured in by_kind.values() for one in measured)
        rates = {
            kind: [one.requests_per_second for one in measured]
            for kind, measured in by_kind.items()
        }
        pairs = zip(rates["process"], rates["thread"], strict=True)
        rows.append(
            (
                f"{name}: requests/s, {connections} connection(s)",
                *(f"{statistics.median(rates[kind]):,.0f}" for kind in KINDS),
                f"{statistics.median(own / other for own, other in pairs):.2f}",
            )
        )
    more_mb = memory["process"] - memory["thread"]
    megabytes = (f"{memory[kind]:.0f}" for kind in KINDS)
    rows.append((f"{name}: memory of all processes, MB", *megabytes, f"{more_mb:+.0f} MB"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="a store with a real network")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--variant", default="fp32")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--seconds", type=float, default=_SECONDS)
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    asked = parser.parse_args()
    ran, rows = pages.here(), []
    with tempfile.TemporaryDirectory() as folder:
        noop_store(Path(folder))
        chosen = [(Path(folder), "noop", "fp32")]
        if asked.models is not None:
            chosen.append((asked.models, asked.model, asked.variant))
        for models, model, variant in chosen:
            entry = catalog.usable(models).models[model][variant]
            calls = calls_us(entry.folder, entry.card, seconds=asked.seconds)
            figures, memory = served(
                models, model, variant, entry.card, rounds=asked.rounds, seconds=asked.seconds
            )
            rows += _rows(f"{model} {variant}", calls, figures, memory)
    head = ("one lane", "thread", "process", "process to thread")
    text = (
        f"{ran} {asked.rounds} rounds of {asked.seconds:g} s; medians; ratios are of the same "
        f"round.\n\n{pages.table(head, rows)}"
    )
    print(text)
    whole = (asked.rounds, asked.seconds) == (_ROUNDS, _SECONDS) and asked.models is not None
    pages.keep(asked.docs, _PAGE, "make bench-lanes", text, whole=whole)


if __name__ == "__main__":
    main()
