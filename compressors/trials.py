"""Engines on trial: one network's programs, measured in turn, and the best of them kept.

They are measured alternately in one run, and `choose` says which one serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from compressors import measure
from compressors.eager import Eager
from compressors.lowered import Lowered
from compressors.measure import Scores
from compressors.progress import Advance, within
from compressors.record import EAGER
from compressors.task import Samples, Task
from compressors.threads import threads_kept
from gateway import engines, evidence
from gateway.engines import Program
from router.card import EngineTrial, LatencyPoint

# How much worse than the default an engine's validation score may turn out, at the lower end of
# the 95 % interval of the paired difference: half a point.
MOST_LOST = 0.005

_YARDSTICK = "the yardstick"  # among programs by engine: no engine's name holds a space


@dataclass(frozen=True)
class Trial:
    """What one engine was measured to do; `scores` are its own on the validation split."""

    record: EngineTrial
    scores: Scores


def measured(
    lowered: Sequence[Lowered],
    eager: Eager | None,
    yardstick: Callable[[], Program] | None,
    task: Task,
    validation: Samples,
    cores: int,
    advance: Advance,
) -> tuple[dict[str, Trial], tuple[LatencyPoint, ...]]:
    """Score and time every program, and the network itself where `eager` is given, by engine; and
    the times of the program that `yardstick` loads on one thread, which took turns with them.

    Raises:
        EngineError, BuildError: a program that passed the checks fails after all.
    """
    scores = {}
    total = len(lowered) + (eager is not None)
    with threads_kept():
        for index, each in enumerate(lowered):
            told = within(advance, index / total * 0.2, (index + 1) / total * 0.2)
            # All cores: a score does not depend on how many computed it.
            program = each.load(cores)
            scores[each.engine] = measure.scores(task, program, validation, told)
            program.close()
        if eager is not None:
            scores[EAGER] = measure.scores(task, eager, validation, within(advance, 0.2, 0.2))
        programs: dict[str, Program] = {each.engine: each.load(1) for each in lowered}
        if eager is not None:
            programs[EAGER] = eager
        if yardstick is not None:
            programs[_YARDSTICK] = yardstick()
        points = measure.latencies(programs, validation, 1, within(advance, 0.2, 1.0))
        trials = {
            each.engine: _trial(
                each.engine,
                engines.get(each.engine).version(),
                each.draft.engine.format,
                each.kernels,
                scores[each.engine],
                points[each.engine],
                each.bytes_on_disk,
            )
            for each in lowered
        }
        if eager is not None:
            version = str(torch.__version__)
            kernels = eager.kernels()
            trials[EAGER] = _trial(EAGER, version, EAGER, kernels, scores[EAGER], points[EAGER], 0)
    for program in programs.values():
        program.close()
    return trials, points.get(_YARDSTICK, ())


def choose(trials: Mapping[str, Trial], default: str) -> tuple[str, str]:
    """The engine that serves, and why, in a sentence.

    Compared is the geometric mean of two medians: of one row alone, and of a row's share of the
    batch size that is best for that engine. The fastest wins, and goes before `default` only if it
    is faster by more than the spread: the runs' interquartile range over their median, the larger
    of the two engines', averaged over the same two. An engine that scores less than the default on
    the validation split is out unless the difference is shown to be at most half a point: the
    lower end of its 95 % interval.

    `trials` may hold "eager", which serves nothing.
    """
    base = trials[default]
    best, gain, notes = default, 1.0, []
    for name, trial in trials.items():
        if name in (default, EAGER):
            continue
        faster = math.sqrt(
            _one(base).p50_ms / _one(trial).p50_ms * _share(_many(base)) / _share(_many(trial))
        )
        spread = (
            sum(max(_spread(point(base)), _spread(point(trial))) for point in (_one, _many)) / 2
        )
        speed = f"{name} is {faster:.2f} times as fast"
        if faster <= 1:
            notes.append(speed)
        elif worse := _worse(trial, base):
            notes.append(f"{speed} and scores less: {worse}")
        elif faster - 1 <= spread:
            notes.append(f"{speed}, within the spread of {spread:.0%}")
        else:
            notes.append(f"{speed}, beyond the spread of {spread:.0%}")
            if faster > gain:
                best, gain = name, faster
    compared = f"; compared with {default}: {', '.join(notes)}" if notes else ""
    return best, f"{best} serves{compared}"


def _trial(
    name: str,
    version: str,
    format_: str,
    kernels: dict[str, int],
    scores: Scores,
    points: tuple[LatencyPoint, ...],
    size: int,
) -> Trial:
    record = EngineTrial(
        name=name,
        version=version,
        format=format_,
        kernels=kernels,
        validation=float(scores.values.mean()),
        latency=points,
        bytes_on_disk=size,
    )
    return Trial(record, scores)


def _one(trial: Trial) -> LatencyPoint:
    return trial.record.latency[0]


def _many(trial: Trial) -> LatencyPoint:
    return min(trial.record.latency, key=_share)


def _share(point: LatencyPoint) -> float:
    return point.p50_ms / point.batch


def _spread(point: LatencyPoint) -> float:
    return point.spread_ms / point.p50_ms


def _worse(trial: Trial, base: Trial) -> str:
    """By how much it scores less, where that is more than may be."""
    value, low, _, _ = evidence.paired_interval(
        trial.scores.values, base.scores.values, base.scores.clusters
    )
    if value >= 0 or low >= -MOST_LOST:
        return ""
    return f"by {-100 * value:.2f} points, perhaps {-100 * low:.2f}"
