"""`python -m tests.bench.compression --data DIR`: what compression reaches on real data, as tables.

Builds the variants of each task with `gearshift compress` into a store of its own (what is there is
kept, so a second run measures alone), times all of a task's variants alternately in one run, one
thread, and prints speed-ups against the best float engine and against eager PyTorch, medians, with
the drop on the test split as the cards have it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from compressors import interface, measure, usertask
from compressors.eager import Eager
from compressors.search.frontier import Point, hypervolume
from gateway import engines
from gateway.engines import Program
from gateway.lifecycle import catalog
from router.card import LatencyPoint, VariantCard
from tests.bench import pages
from tests.bench.compression.tasks import fashion

_PAGE = Path("docs/benchmarks/compression.md")
HERE = Path(__file__).parent
BATCHES = (1, 32)
EAGER, FLOAT = "eager PyTorch", "best float engine"


@dataclass(frozen=True)
class Bench:
    """One task's variants and what is said of them."""

    task: str
    recipes: str
    engines: str
    targets: dict[str, str]


BENCHES = {
    "fashion": Bench(
        "fashion",
        "fashion",
        "openvino,onnxruntime",
        {
            "int8": "3 at 1, 3.5 at 32; 0.3 points",
            "pruned": "1.6; 0.5 points",
            "pruned-int8": "5",
            "student-pruned-int8": "15; 1 point",
        },
    ),
    "sst2": Bench(
        "sst2", "minilm", "openvino", {"int8": "2.5; 0.5 points", "pruned-int8": "6; 2 points"}
    ),
    "stsb": Bench(
        "stsb", "minilm", "openvino", {"int8": "2.5; 0.5 points", "pruned-int8": "6; 2 points"}
    ),
    "adult": Bench("adult", "adult", "openvino,onnxruntime", {}),
}

# Whose variants make up whose frontier on Fashion-MNIST. The reference is everybody's.
ALONE = {
    "NNCF alone": ("fp32", "int8", "nncf-mixed-preset"),
    "torch-pruning alone": ("fp32", "torch-pruning"),
}
WORST_DROP = 0.02  # of the hypervolume's rectangle: two points


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compression", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("bench-results/compression"))
    parser.add_argument("--only", choices=list(BENCHES), action="append")
    parser.add_argument("--docs", type=Path, help=f"the page, by default {_PAGE}")
    wanted = parser.parse_args()
    ran = pages.here()
    os.environ["GEARSHIFT_BENCH_DATA"] = str(wanted.data.resolve())
    os.environ.setdefault("GEARSHIFT_BENCH_WEIGHTS", str(wanted.work.resolve() / "weights"))
    console = Console(width=170)
    for name in wanted.only or BENCHES:
        bench = BENCHES[name]
        folder = build(bench, wanted.work / "models")
        rows, cpu = compare(bench, folder)
        views = [table(bench, rows, cpu)]
        if name == "fashion":
            views.append(frontiers(rows))
        for view in views:
            console.print(view)
        text = "\n\n".join([ran, *map(pages.of_rich, views)])
        # A task is measured whole, or not at all.
        pages.keep(wanted.docs, _PAGE, f"make bench-compression ({name})", text, whole=True)


def build(bench: Bench, store: Path) -> Path:
    """The model's folder in the store, with every variant of the recipes built; the reference is
    trained first where that has not been done."""
    if bench.task == "fashion" and not fashion.weights().exists():
        fashion.train()
    command = [
        Path(sys.executable).with_name("gearshift"), "compress",
        str(HERE / "tasks" / f"{bench.task}.py"),
        "--recipes", str(HERE / "recipes" / f"{bench.recipes}.toml"),
        "--out", str(store), "--engine", bench.engines,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return store / bench.task


@dataclass(frozen=True)
class Row:
    """One variant: its card, and its median times in this run by batch size."""

    card: VariantCard
    points: dict[int, LatencyPoint]
    float_ms: dict[int, float]
    eager_ms: dict[int, float]

    def speedup(self, batch: int, against: str) -> float:
        base = self.float_ms if against == FLOAT else self.eager_ms
        return base[batch] / self.points[batch].p50_ms


def compare(bench: Bench, folder: Path) -> tuple[list[Row], str]:
    """Every variant of `folder`, timed alternately with the reference's engines and eager."""
    cards = [catalog.read_variant(path).card for path in sorted(folder.iterdir()) if path.is_dir()
             and not path.name.startswith(".")]  # fmt: skip
    first = next(card for card in cards if card.variant == card.reference)
    task = usertask.load(str(HERE / "tasks" / f"{bench.task}.py"))
    validation = task.samples("validation")
    with loaded(folder, cards, first) as programs:
        network = task.network()
        seen = interface.describe(task, network, validation)
        timed = measure.latencies(
            {**programs, EAGER: Eager(network, seen, 1)},
            validation,
            1,
            lambda _fraction, _text: None,
            BATCHES,
        )
    by_name = {name: {p.batch: p for p in points} for name, points in timed.items()}
    floats = [points for name, points in by_name.items() if name.startswith(f"{first.variant}@")]
    float_ms = {batch: min(points[batch].p50_ms for points in floats) for batch in BATCHES}
    eager_ms = {batch: by_name[EAGER][batch].p50_ms for batch in BATCHES}
    rows = [
        Row(card, by_name[f"{card.variant}@{card.engine.name}"], float_ms, eager_ms)
        for card in cards
    ]
    return sorted(rows, key=lambda row: -row.points[1].p50_ms), first.machine.cpu


@contextmanager
def loaded(
    folder: Path, cards: Sequence[VariantCard], first: VariantCard
) -> Iterator[dict[str, Program]]:
    """Programs by `variant@engine`: each variant's own engine, and all of the reference's."""
    found: dict[str, Program] = {}
    for card in cards:
        names = {card.engine.name: card}
        if card is first:
            names |= {
                trial.name: card.model_copy(
                    update={
                        "engine": card.engine.model_copy(
                            update={"name": trial.name, "format": trial.format}
                        )
                    }
                )
                for trial in card.engines
                if trial.name != "eager"
            }
        for name, own in names.items():
            found[f"{card.variant}@{name}"] = engines.get(name).load(
                folder / card.variant, own, threads=1, trusted=True
            )
    try:
        yield found
    finally:
        for program in found.values():
            program.close()


def table(bench: Bench, rows: Sequence[Row], cpu: str) -> Table:
    """One row a variant, slowest first."""
    first = next(row.card for row in rows if row.card.variant == row.card.reference)
    view = Table(
        title=f"{bench.task}: {first.task.metric} on {first.task.samples:,} test samples; "
        f"one thread of {cpu}",
        caption="Medians of one run in turns. Faster: than the best float engine of the reference, "
        "and than eager PyTorch. Drop: on the same samples, points, with its 95 % interval.",
        title_justify="left",
        caption_justify="left",
    )
    for heading in (
        "variant", "engine", f"{first.task.metric} %", "drop", "ms at 1", "ms at 32",
        "faster at 1", "faster at 32", "than eager", "target",
    ):  # fmt: skip
        view.add_column(heading, justify="left" if heading in ("variant", "target") else "right")
    for row in rows:
        paired = row.card.paired
        drop = f"{-100 * paired.value:.2f} [{-100 * paired.high:.2f}, {-100 * paired.low:.2f}]"
        view.add_row(
            row.card.variant,
            row.card.engine.name,
            f"{100 * row.card.accuracy.value:.2f}",
            drop if row.card is not first else "reference",
            *(f"{row.points[batch].p50_ms:.3g}" for batch in BATCHES),
            *(f"{row.speedup(batch, FLOAT):.2f}×" for batch in BATCHES),
            " / ".join(f"{row.speedup(batch, EAGER):.1f}×" for batch in BATCHES),
            bench.targets.get(row.card.variant, ""),
        )
    return view


def frontiers(rows: Sequence[Row]) -> Table:
    """The hypervolume of our frontier beside those of one tool alone."""
    view = Table(
        title="hypervolume: share of the plane of latency (batch 1, to the best float engine's) "
        f"and drop (to {100 * WORST_DROP:g} points) that is beaten",
        title_justify="left",
    )
    view.add_column("recipes of")
    view.add_column("hypervolume", justify="right")
    everything: Any = tuple(row.card.variant for row in rows)
    for who, names in {"Gearshift": everything, **ALONE}.items():
        own = [
            Point(
                row.card.variant, row.points[1].p50_ms, 0.0, -row.card.paired.value,
                -row.card.paired.high, -row.card.paired.low,
            )
            for row in rows
            if row.card.variant in names
        ]  # fmt: skip
        view.add_row(who, f"{hypervolume(own, rows[0].float_ms[1], WORST_DROP):.3f}")
    return view


if __name__ == "__main__":
    main()
