"""`python -m tests.bench.compression.distillation --data DIR`: what a teacher is worth.

The same student, first weights, order of samples and epochs, once from labels alone
(`train-student`) and once from the reference as well (`distil`), over seeds; the test split is
asked once for each trained network. Samples are the split's own, not augmented, so that the
teacher answers them once.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import nn

from compressors import technique, training, usertask
from compressors.task import Array, Samples, Task
from compressors.technique import Context, Network
from tests.bench.compression.tasks import fashion

HERE = Path(__file__).parent
# Student's 97.5 % quantile for as many seeds less one.
_T = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}


class AsIs(Task):
    """A task without its augmentation, and with a student of Fashion-MNIST's family of that width
    where one is asked for."""

    def __init__(self, task: Task, width: int | None) -> None:
        self._task, self._width = task, width
        self.name, self.outputs, self.labels = task.name, task.outputs, task.labels

    def network(self) -> nn.Module:
        return self._task.network()

    def samples(self, split: Any) -> Samples:
        return self._task.samples(split)

    def student(self) -> nn.Module | None:
        if self._width is not None:
            return fashion.Residual(self._width, (1, 1, 1))
        return self._task.student()

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        return self._task.score(outputs, targets)

    def loss(self, outputs: Any, targets: Any) -> Any:
        return self._task.loss(outputs, targets)


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("bench-results/compression"))
    parser.add_argument("--task", default="fashion")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, help="of another student, for Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=5, choices=sorted(_T))
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--soft-weight", type=float, default=0.9)
    wanted = parser.parse_args()
    os.environ["GEARSHIFT_BENCH_DATA"] = str(wanted.data.resolve())
    os.environ.setdefault("GEARSHIFT_BENCH_WEIGHTS", str(wanted.work.resolve() / "weights"))
    task = AsIs(usertask.load(str(HERE / "tasks" / f"{wanted.task}.py")), wanted.width)
    ways: dict[str, dict[str, Any]] = {
        "train-student": {},
        "distil": {"temperature": wanted.temperature, "soft_weight": wanted.soft_weight},
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    cache: dict[str, Any] = {}
    reference = task.network().eval()
    for seed in range(wanted.seeds):
        for name, settings in ways.items():
            begun = time.monotonic()
            own = technique.get(name)
            config = own.Config.model_validate(
                {"epochs": wanted.epochs, "batch_size": 128, **settings}
            )
            context = Context(task, reference, seed, lambda _f, _t: None, cache)
            student = own.apply(Network(task.network()), context, config).module
            score = training.validation_score(student, task, task.samples("test"))
            found[name].append(100 * score)
            print(f"seed {seed}: {name} {100 * score:.2f}, {time.monotonic() - begun:.0f} s")
    Console(width=120).print(table(wanted.task, found))


def table(task: str, found: dict[str, list[float]]) -> Table:
    """Each way's mean, and the gain seed by seed with its 95 % interval."""
    view = Table(title=f"{task}: the student on test, points, {len(found['distil'])} seeds")
    for heading in ("way", "mean", "by seed"):
        view.add_column(heading)
    for name, scores in found.items():
        view.add_row(name, f"{np.mean(scores):.2f}", " ".join(f"{s:.2f}" for s in scores))
    gain = np.subtract(found["distil"], found["train-student"])
    half = _T[len(gain)] * gain.std(ddof=1) / np.sqrt(len(gain))
    view.add_row(
        "gain by the teacher",
        f"{gain.mean():+.2f} ± {half:.2f}",
        " ".join(f"{g:+.2f}" for g in gain),
    )
    return view


if __name__ == "__main__":
    main()
