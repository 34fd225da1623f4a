"""What a card says about a variant: accuracy with intervals, and latency by batch size.

Both are measured through `gateway.engines`, the code that serves.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from compressors.errors import StoreError, TaskError
from compressors.task import Array, Samples, Task
from gateway import evidence
from gateway.engines import Program
from router.card import SCORES_FILE, Accuracy, LatencyPoint, PairedDifference

BATCHES = (1, 2, 4, 8, 16, 32)

# A p99 is a statement about the slowest run in a hundred: with 200 runs it rests on two of them,
# with fewer than 100 it is the slowest run seen, which errs on the safe side. So the batch of one,
# which deadlines are about, gets at least 200, and large batches, which take longer and vary less,
# no fewer than 30. A fast network gets more runs, until the time is up.
MIN_RUNS = {1: 200, 2: 100, 4: 60}
MIN_RUNS_OTHERWISE = 30
MAX_RUNS = 2000
SECONDS_PER_BATCH_SIZE = 0.7
# Turns that each program takes at each batch size: some 0.07 s a turn, shorter than most
# disturbances last, and long enough for what the first run of a turn costs not to matter.
_TURNS = 10
_WARM_UP_RUNS = 5  # the first compiles for the batch size, the next ones settle its memory

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Scores:
    """Per-sample scores (n,) on the test split, and the source of each sample, (n,) integers."""

    values: Array
    clusters: Array

    def save(self, folder: Path) -> None:
        """Raises StoreError where they cannot be written."""
        tensors = {
            "scores": self.values.astype(np.float64),
            "clusters": self.clusters.astype(np.int64),
        }
        try:
            save_file(tensors, folder / SCORES_FILE)
        except Exception as error:  # safetensors wraps what the system says
            raise StoreError(f"cannot write {folder / SCORES_FILE}: {error}") from error

    @classmethod
    def load(cls, folder: Path) -> Scores:
        """Raises StoreError where the file is not there or holds something else."""
        try:
            tensors = load_file(folder / SCORES_FILE)
            return cls(tensors["scores"], tensors["clusters"])
        except Exception as error:
            raise StoreError(f"{folder / SCORES_FILE} cannot be read: {error}") from error


def run(
    program: Program, inputs: dict[str, Array], batch: int, progress: Progress
) -> dict[str, Array]:
    """The program's outputs for `inputs` (each (n, ...)), computed `batch` at a time."""
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, batch):
        rows = {name: array[start : start + batch] for name, array in inputs.items()}
        parts.append(program.infer(rows))
        progress(min(1.0, (start + batch) / count), "accuracy")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def scores(task: Task, program: Program, test: Samples, progress: Progress) -> Scores:
    """The score of each test sample.

    Raises:
        TaskError: the task's `score` returns another number of them, one that is not finite, or
            scores whose mean is outside [0, 1].
    """
    outputs = run(program, test.inputs, BATCHES[-1], progress)
    values = np.asarray(task.score(outputs, test.targets), dtype=np.float64)
    if values.shape != (len(test),):
        raise TaskError(f"score(): expected shape ({len(test)},), got {values.shape}")
    if not np.isfinite(values).all():
        raise TaskError("score(): expected finite values, got NaN or infinity")
    if not 0 <= values.mean() <= 1:
        raise TaskError(f"score(): expected a mean from 0 to 1, got {values.mean():g}")
    clusters = np.arange(len(test)) if test.clusters is None else test.clusters
    return Scores(values, np.asarray(clusters, dtype=np.int64))


def accuracy(found: Scores) -> Accuracy:
    """The metric with its 95 % interval."""
    value, low, high, method = evidence.accuracy_interval(found.values, found.clusters)
    return Accuracy(value=value, low=low, high=high, method=method)


def paired(found: Scores, reference: Scores) -> PairedDifference:
    """The difference to the reference on the same samples, with its 95 % interval.

    Raises:
        StoreError: the reference was scored on other samples.
    """
    if not np.array_equal(found.clusters, reference.clusters):
        raise StoreError("the reference in the store was scored on another test split")
    value, low, high, method = evidence.paired_interval(
        found.values, reference.values, found.clusters
    )
    return PairedDifference(value=value, low=low, high=high, method=method)


def latency(
    program: Program, samples: Samples, threads: int, progress: Progress
) -> tuple[LatencyPoint, ...]:
    """`latencies` of one program alone."""
    return latencies({"": program}, samples, threads, progress)[""]


def latencies(
    programs: Mapping[str, Program],
    samples: Samples,
    threads: int,
    progress: Progress,
    batches: Sequence[int] = BATCHES,
) -> dict[str, tuple[LatencyPoint, ...]]:
    """Time of one batch for each of `batches`, on real samples, of programs to be compared.

    They take turns in short blocks, so that a neighbour on the machine, or its clock, hits all of
    them alike: one after the other, each would be measured on another machine. `threads` is what
    the programs were loaded with.
    """
    points: dict[str, list[LatencyPoint]] = {name: [] for name in programs}
    for index, batch in enumerate(batches):
        rows = np.resize(np.arange(len(samples)), batch)  # again from the first where too few
        inputs = {name: np.ascontiguousarray(array[rows]) for name, array in samples.inputs.items()}

        def told(done: float, index: int = index, batch: int = batch) -> None:
            progress((index + done) / len(batches), f"latency, batch {batch}")

        for name, times in _timed(programs, inputs, batch, told).items():
            points[name].append(_point(times, batch, threads))
    progress(1.0, "latency")
    return {name: tuple(found) for name, found in points.items()}


def _timed(
    programs: Mapping[str, Program],
    inputs: dict[str, Array],
    batch: int,
    told: Callable[[float], None],
) -> dict[str, Array]:
    """Milliseconds of each run, by program."""
    clock = time.perf_counter
    least = MIN_RUNS.get(batch, MIN_RUNS_OTHERWISE)
    block: dict[str, int] = {}
    for name, program in programs.items():
        warm = []
        for _ in range(_WARM_UP_RUNS):
            start = clock()
            program.infer(inputs)
            warm.append(clock() - start)
        runs = min(max(SECONDS_PER_BATCH_SIZE / min(warm), least), MAX_RUNS)
        block[name] = math.ceil(runs / _TURNS)
    times: dict[str, list[float]] = {name: [] for name in programs}
    collecting = gc.isenabled()
    gc.disable()  # a collection of the build's own objects is no part of an inference
    try:
        for turn in range(_TURNS):
            told(turn / _TURNS)
            for name, program in programs.items():
                if len(programs) > 1:
                    program.infer(inputs)  # fetches its weights back from where others pushed them
                for _ in range(block[name]):
                    start = clock()
                    program.infer(inputs)
                    times[name].append((clock() - start) * 1e3)
    finally:
        if collecting:
            gc.enable()
    return {name: np.array(found) for name, found in times.items()}


def _point(times: Array, batch: int, threads: int) -> LatencyPoint:
    # A percentile is a run that happened, never a mean of two.
    p25, p50, p75, p95, p99 = np.percentile(times, (25, 50, 75, 95, 99), method="higher")
    return LatencyPoint(
        batch=batch,
        threads=threads,
        runs=len(times),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        spread_ms=float(p75 - p25),
    )
