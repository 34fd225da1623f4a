"""What a network was made of, as one digest: equal digests, equal networks.

In it are the reference's structure and weights, the training and validation data, the task's own
file (its loss and its student), the steps with every setting, the code of their techniques and of
whatever part of `compressors` that code imports, the seed, the packages that compute, and the CPU,
because training rounds as its instructions do. The test split is not: nothing is made from it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import nn

from compressors import machine, verify
from compressors.recipe import TypedStep
from compressors.task import Samples, Split
from compressors.usertask import Guarded

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_PACKAGES = ("torch", "numpy", "nncf", "openvino", "tensorly", "torch-pruning", "transformers")


class Provenance:
    """Keys of the networks of one build. Everything costly is read once, when first asked for."""

    def __init__(self, task: Guarded, reference: nn.Module, seed: int) -> None:
        self._task, self._reference, self._seed = task, reference, seed

    def key(self, steps: Sequence[TypedStep]) -> str:
        """SHA-256, in hexadecimal, of all that makes the network after `steps`."""
        told = [
            {**step.record().model_dump(mode="json"), "code": code_digest(_module(step))}
            for step in steps
        ]
        return hashlib.sha256(json.dumps([self._origin, told]).encode()).hexdigest()

    @cached_property
    def _origin(self) -> dict[str, object]:
        here = machine.describe()
        return {
            "structure": repr(self._reference),
            "weights": verify.weights_digest(self._reference),
            "train": samples_digest(self._task.samples("train")),
            "validation": samples_digest(self._task.samples("validation")),
            "task": _code(self._task.file),
            "seed": self._seed,
            "packages": {name: _version(name) for name in _PACKAGES},
            "python": sys.version_info[:2],
            "machine": [here.cpu, here.instruction_sets],
        }


def samples_digest(samples: Samples) -> str:
    """SHA-256 over names, types, shapes and bytes of inputs, targets and clusters."""
    digest = hashlib.sha256()
    parts = {**samples.inputs, "": samples.targets}
    if samples.clusters is not None:
        parts[" clusters"] = samples.clusters
    for name, array in parts.items():
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def definition_digest(task: Guarded) -> str:
    """SHA-256 over what a task is: the code of its own file (comments and docstrings aside) and the
    samples of every split. What its code imports is not in it."""
    digest = hashlib.sha256(_code(task.file).encode())
    for split in _SPLITS:
        digest.update(samples_digest(task.samples(split)).encode())
    return digest.hexdigest()


def _code(path: str) -> str:
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""  # typed into an interpreter, or compiled: there is no source
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


@cache
def code_digest(module: str) -> str:
    """SHA-256 over the source of `module` and of every module of `compressors` that it imports,
    itself or through others."""
    digest, seen, waiting = hashlib.sha256(), set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name in seen or (source := _source(name)) is None:
            continue
        seen.add(name)
        digest.update(f"{name}\n".encode() + source)
        waiting.extend(sorted(_imported(source)))
    return digest.hexdigest()


def _imported(source: bytes) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module`: either is looked for, what is no module is dropped.
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("compressors.")}


def _source(name: str) -> bytes | None:
    try:
        found = find_spec(name)
    except (ImportError, ValueError):
        return None  # a class or a function of a module, which is in the list itself
    if found is None or not found.origin or not found.origin.endswith(".py"):
        return None
    return Path(found.origin).read_bytes()


def _module(step: TypedStep) -> str:
    return type(step.implementation()).__module__


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
