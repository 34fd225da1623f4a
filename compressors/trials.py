"""Engines on trial: one network lowered to each of them, checked, measured in turn, the best kept.

A lowered program that fails a check is out; so is an engine that cannot run the network at all.
The others are measured alternately in one run, and `choose` says which one serves.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from compressors import lowering, measure, resizing, verify
from compressors.draft import draft_card
from compressors.eager import Eager
from compressors.errors import BuildError, NotSupported, StoreError
from compressors.export import first_line
from compressors.interface import Interface
from compressors.interface import run as run_network
from compressors.measure import Scores
from compressors.networks import out_of_memory
from compressors.progress import Advance, ticking, within
from compressors.record import EAGER
from compressors.task import Array, Samples, Task
from compressors.technique import Network
from gateway import engines, evidence
from gateway.engines import EngineError, Program
from gateway.engines.torch import TASK
from router.card import EngineTrial, LatencyPoint, VariantCard

# What an engine takes to lower one network, in seconds, for the bar and for estimates: measured
# on networks of 0.7 to 22 M parameters. AOTInductor runs a C++ compiler.
LOWERING_SECONDS = {"openvino": 3.0, "onnxruntime": 5.0, "torch": 18.0}
LOWERING_SECONDS_OTHERWISE = 5.0

# How much worse than the default an engine's validation score may turn out, at the lower end of
# the 95 % interval of the paired difference: half a point.
MOST_LOST = 0.005

_YARDSTICK = "the yardstick"  # among programs by engine: no engine's name holds a space
_DISK_IS_FULL_BELOW = 64 * 1024  # bytes; a file system keeps some blocks to itself


@dataclass(frozen=True)
class Lowered:
    """One engine's program, on disk and checked."""

    engine: str
    folder: Path
    draft: VariantCard
    kernels: dict[str, int]
    versions: dict[str, str]
    seconds: float

    @property
    def bytes_on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def load(self, threads: int) -> Program:
        # Written by this process a moment ago: it is trusted by that.
        engine = engines.get(self.engine)
        return engine.load(self.folder, self.draft, threads=threads, trusted=True)


@dataclass(frozen=True)
class Trial:
    """What one engine was measured to do; `scores` are its own on the validation split."""

    record: EngineTrial
    scores: Scores


@dataclass(frozen=True)
class Checked:
    """What every program is compared with: some inputs, the reference's outputs for them, and
    the names of those."""

    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]


def lower(
    names: Sequence[str],
    network: Network,
    interface: Interface,
    checked: Checked,
    folder_of: Mapping[str, Path],
    advance: Advance,
) -> tuple[list[Lowered], dict[str, str]]:
    """Lower `network` to each engine of `names` and check what comes out, in that order; and the
    engines that could not, each with the reason. `folder_of` gives each an empty folder.

    Raises:
        ShapeChanged, NotFinite: the network itself does not compute what it should.
        NotSupported: no engine can run it, on this machine.
        BuildError: no engine's program passed. It is of the first engine's kind that failed for
            another reason than not being supported.
        StoreError: the disk is full.
    """
    outputs = tuple(spec.name for spec in interface.outputs)
    own = run_network(network.module, dict(checked.inputs), outputs)
    verify.same_shapes(checked.expected, own, "the network")
    verify.finite(own, "the network")
    passed: list[Lowered] = []
    failed: dict[str, Exception] = {}
    expected = {name: LOWERING_SECONDS.get(name, LOWERING_SECONDS_OTHERWISE) for name in names}
    begun = 0.0
    for name in names:
        share = expected[name] / sum(expected.values())
        told = within(advance, begun, begun + share)
        begun += share
        try:
            with ticking(told, expected[name], f"lowering to {name}"):
                passed.append(_lowered(name, network, interface, checked, own, folder_of[name]))
        except (BuildError, EngineError) as error:
            failed[name] = error
        except Exception as error:  # an exporter's own: there is no common base
            told_as = "out of memory" if out_of_memory(error) else "cannot be lowered"
            failed[name] = BuildError(f"{told_as}: {first_line(error)}")
        if name in failed and _disk_is_full(folder_of[name]):
            raise StoreError(f"cannot write {folder_of[name]}: the disk is full")
    if not passed:
        raise _why_none(failed)
    return passed, {name: _sentence(error) for name, error in failed.items()}


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


@contextmanager
def threads_kept() -> Iterator[None]:
    """PyTorch's number of threads is the process's own, and an engine on one thread sets it: the
    next network would be trained on that one."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def draft_of(name: str, network: Network, interface: Interface, folder: Path) -> VariantCard:
    """The draft of what `network` was just lowered to in `folder`, for the engine `name`."""
    format_ = lowering.get(name).format(network, folder)
    return draft_card(
        name,
        format_,
        network.numerics.precision,
        interface.inputs,
        interface.outputs,
        interface.constructor if format_ == TASK else None,
        interface.constructor_digest,
    )


def _lowered(
    name: str,
    network: Network,
    interface: Interface,
    checked: Checked,
    own: dict[str, Array],
    folder: Path,
) -> Lowered:
    begun = time.monotonic()
    target = lowering.get(name)
    precision = network.numerics.precision
    with threads_kept():
        memory = target.lower(network, interface, folder)
        draft = draft_of(name, network, interface, folder)
        engine = engines.get(name)
        disk = engine.load(folder, draft, threads=1, trusted=True)
        got = disk.infer(checked.inputs)
        verify.same_shapes(checked.expected, got, "the program")
        verify.finite(got, "the program")
        verify.export_matches(own, got, precision, network.numerics.weights)
        verify.reload_matches(memory.infer(checked.inputs), got)
        # A graph that was fixed to one batch size is found out here, not while it is timed.
        disk.infer({key: array[:1] for key, array in checked.inputs.items()})
        kernels = disk.kernels()
        verify.right_kernels(kernels, precision)
        resizing.check(disk, network, interface)
        memory.close()
        disk.close()
    return Lowered(name, folder, draft, kernels, target.version(), time.monotonic() - begun)


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


def _why_none(failed: Mapping[str, Exception]) -> Exception:
    reasons = [error for error in failed.values() if not isinstance(error, NotSupported)]
    first = (reasons or list(failed.values()))[0]
    if len(failed) == 1:
        return first
    kind = type(first) if isinstance(first, BuildError) else BuildError
    return kind("; ".join(f"{name}: {_sentence(error)}" for name, error in failed.items()))


def _sentence(error: Exception) -> str:
    if isinstance(error, NotSupported):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _disk_is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _DISK_IS_FULL_BELOW
