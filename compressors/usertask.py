"""A user's task: found by its name, path or module, and run so that its faults are told as such.

TASK is a bundled name (`digits`), a Python file (`flowers.py`, or `flowers.py:Flowers` where it
holds several), or `package.module:Class`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from compressors.errors import BuildError, TaskError
from compressors.interface import Interface
from compressors.processing import Processing
from compressors.task import Array, Samples, Split, Task
from router.card import NAME_PATTERN
from router.padding import Padding

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def bundled() -> list[str]:
    """The names of the tasks that come with the package."""
    import compressors.tasks as folder

    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def load(spec: str) -> Guarded:
    """The task that `spec` names, guarded: whatever its own code raises becomes a TaskError.

    Raises:
        TaskError: there is no such task, or its code is at fault; the message names file and line.
    """
    place, _, wanted = spec.partition(":")
    if spec in bundled():
        task: Any = _import(f"compressors.tasks.{spec}", spec).TASK
        return Guarded(cast(Task, task() if inspect.isclass(task) else task), spec)
    if place.endswith(".py"):
        module = _import_file(Path(place))
        place = str(Path(place).resolve())
    elif wanted:
        # A console script does not put the current folder on the path, `python` does.
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        module = _import(place, spec)
    else:
        raise TaskError(
            f"unknown task {spec!r}; expected a bundled one ({', '.join(bundled()) or 'none'}), "
            "a Python file such as task.py, or package.module:Class"
        )
    kind = _find(module, wanted, spec)
    with _blamed(str(module.__file__), f"{kind.__name__}()"):
        return Guarded(kind(), f"{place}:{kind.__name__}")


class Guarded(Task):
    """A task whose code is called under guard, and whose splits are made once.

    `spec` names it in a form that `load` takes in any folder; None for a task made in memory.
    `source_digest` is the SHA-256 of the file that its class is written in, as it was when it was
    loaded; None where there is no such file.
    """

    def __init__(self, task: Task, spec: str | None = None) -> None:
        self._task, self.spec = task, spec
        self._file = inspect.getsourcefile(type(task)) or "the task"
        self.source_digest = _digest(self._file)
        self._splits: dict[str, Samples] = {}
        self._drawn = 0
        name = getattr(task, "name", None)
        if not isinstance(name, str) or not re.match(NAME_PATTERN, name):
            raise TaskError(
                f"{self._file}: name: expected lower-case letters, digits, '.', '_' and '-', at "
                f"most 64, starting with a letter or digit, got {name!r}"
            )
        outputs = task.outputs
        if not outputs or not all(isinstance(output, str) for output in outputs):
            raise TaskError(f"{self._file}: outputs: expected names, got {outputs!r}")
        self.name, self.metric, self.outputs = name, task.metric, tuple(outputs)
        self.labels = None if task.labels is None else tuple(map(str, task.labels))
        self.free_dimensions = dict(task.free_dimensions)
        self.padding = tuple(task.padding)
        if not all(isinstance(each, Padding) for each in self.padding):
            raise TaskError(
                f"{self._file}: padding: expected a tuple of router.padding.Padding, "
                f"got {task.padding!r}"
            )

    @property
    def file(self) -> str:
        """The file that the task's class is written in; of a class in memory, no file's name."""
        return self._file

    def __getattr__(self, name: str) -> Any:
        # What a bundled task offers beyond the contract.
        return getattr(self.__dict__["_task"], name)

    def network(self) -> nn.Module:
        with _blamed(self._file, "network()"):
            network = self._task.network()
        if not isinstance(network, nn.Module):
            raise TaskError(f"{self._file}: network(): expected a torch.nn.Module, got {network!r}")
        return network.eval()

    def processor(self) -> Processing | None:
        with _blamed(self._file, "processor()"):
            processing = self._task.processor()
        if processing is not None and not isinstance(processing, Processing):
            raise TaskError(
                f"{self._file}: processor(): expected a Processing or None, got {processing!r}"
            )
        return processing

    def samples(self, split: Split) -> Samples:
        if split not in self._splits:
            with _blamed(self._file, f"samples({split!r})"):
                samples = self._task.samples(split)
            if not isinstance(samples, Samples):
                kind = "nothing" if samples is None else type(samples).__name__
                raise TaskError(
                    f"{self._file}: samples({split!r}): expected Samples, whose arrays hold the "
                    f"whole split, got {kind}"
                )
            self._splits[split] = samples
        return self._splits[split]

    def training_samples(self, epoch: int) -> Samples:
        if type(self._task).training_samples is Task.training_samples:
            return self.samples("train")
        where = f"training_samples({epoch})"
        with _blamed(self._file, where):
            drawn = self._task.training_samples(epoch)
        if not isinstance(drawn, Samples):
            raise TaskError(f"{self._file}: {where}: expected Samples, got {type(drawn).__name__}")
        expected = {n: (a.dtype, a.shape[1:]) for n, a in self.samples("train").inputs.items()}
        got = {name: (a.dtype, a.shape[1:]) for name, a in drawn.inputs.items()}
        if list(expected.items()) != list(got.items()):
            raise TaskError(
                f"{self._file}: {where}: expected inputs as in samples('train'), "
                f"{_told(expected)}, got {_told(got)}"
            )
        self._drawn = self._drawn or len(drawn)
        if len(drawn) != self._drawn:
            raise TaskError(
                f"{self._file}: {where}: expected {self._drawn} samples, as at the first epoch "
                f"that was drawn, got {len(drawn)}"
            )
        return drawn

    def student(self) -> nn.Module | None:
        with _blamed(self._file, "student()"):
            return self._task.student()

    def score(self, outputs: dict[str, Array], targets: Array) -> Array:
        with _blamed(self._file, "score()"):
            return self._task.score(outputs, targets)

    def loss(self, outputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> torch.Tensor:
        with _blamed(self._file, "loss()"):
            return self._task.loss(outputs, targets)

    def check_splits(self, interface: Interface) -> None:
        """Every split must have the inputs that the network takes and, where the score compares
        class numbers, only classes that it has an output for.

        Raises:
            TaskError: one has not.
        """
        for split in _SPLITS:
            samples, where = self.samples(split), f"{self._file}: samples({split!r})"
            _check_inputs(samples, interface, where)
            if samples.targets.dtype.kind == "f" and not np.isfinite(samples.targets).all():
                raise TaskError(f"{where}: targets: has NaN or infinity")
            if type(self._task).score is Task.score:
                _check_classes(samples.targets, interface.outputs[0].shape[-1], where)
        classes = interface.outputs[0].shape[-1]
        if self.labels is not None and len(self.labels) != classes:
            raise TaskError(
                f"{self._file}: labels: expected {classes}, one per output, got {len(self.labels)}"
            )

    @contextmanager
    def blamed(self, what: str) -> Iterator[None]:
        """What is raised inside is the task's fault: its network's, when that is run."""
        with _blamed(self._file, what):
            yield


def _check_inputs(samples: Samples, interface: Interface, where: str) -> None:
    names = [spec.name for spec in interface.inputs]
    if list(samples.inputs) != names:
        raise TaskError(
            f"{where}: expected inputs {', '.join(names)}, got {', '.join(samples.inputs)}"
        )
    for spec in interface.inputs:
        found, example = samples.inputs[spec.name], interface.example[spec.name]
        what = f"{where}: inputs[{spec.name!r}]"
        if found.shape[1:] != example.shape[1:] or found.dtype != example.dtype:
            raise TaskError(
                f"{what}: expected {example.dtype} {spec.shape}, got {found.dtype} {found.shape}"
            )
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise TaskError(f"{what}: has NaN or infinity")


def _told(inputs: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in inputs.items())


def _check_classes(targets: Array, classes: int, where: str) -> None:
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise TaskError(
            f"{where}: targets: expected one class number per sample, "
            f"got {targets.dtype} {targets.shape}"
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise TaskError(
            f"{where}: targets: expected class numbers from 0 to {classes - 1}, as the network "
            f"has {classes} outputs, got {low} to {high}"
        )


def _digest(file: str) -> str | None:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


def _find(module: ModuleType, wanted: str, spec: str) -> type[Task]:
    own = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Task)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    }
    there = ", ".join(sorted(own)) or "none"
    if wanted:
        if wanted not in own:
            raise TaskError(f"{module.__file__}: no task {wanted!r} in it; there are: {there}")
        return own[wanted]
    if len(own) != 1:
        complaint = "no subclass of compressors.task.Task that defines network() and samples()"
        if own:
            complaint = f"{len(own)} tasks ({there}); say which: {spec}:{min(own)}"
        raise TaskError(f"{module.__file__}: expected one task in it, got {complaint}")
    return next(iter(own.values()))


def _import(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise TaskError(f"task {spec!r}: there is no module {error.name!r}") from error
        raise _fault(error, name, "import") from error
    except (Exception, SystemExit) as error:
        found = importlib.util.find_spec(name)
        raise _fault(error, (found and found.origin) or name, "import") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"{path}: there is no such file")
    path = path.resolve()
    name = f"gearshift_task_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(found)
    # As with `python FILE`: modules beside it can be imported. Registered, because dataclasses
    # and typing look their module up.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    with _blamed(str(path), "import"):
        found.loader.exec_module(module)
    return module


@contextmanager
def _blamed(file: str, what: str) -> Iterator[None]:
    try:
        yield
    except BuildError as error:
        if isinstance(error, TaskError) and not str(error).startswith(file):
            raise TaskError(f"{file}: {what}: {error}") from error
        raise
    except (Exception, SystemExit) as error:
        raise _fault(error, file, what) from error


def _is_memory(error: BaseException) -> bool:
    # PyTorch has no class of its own for the CPU's: "[enforce fail at alloc_cpu.cpp] ...
    # DefaultCPUAllocator: can't allocate memory", or "not enough memory", by the system.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("allocate memory" in str(error) or "not enough memory" in str(error))
    )


def _fault(error: BaseException, file: str, what: str) -> TaskError:
    line: int | None = None
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == file), None)
    told = str(error).strip().splitlines()
    if _is_memory(error):
        told = ["out of memory; smaller samples, or a smaller network, would need less"]
    place = f"{file}:{line}" if line else file
    return TaskError(
        f"{place}: {what}: {type(error).__name__}: {told[0] if told else 'no message'}"
    )
