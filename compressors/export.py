"""torch.export with free dimensions: the first half of every lowering."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import nn

from compressors import verify
from compressors.errors import BuildError
from compressors.interface import Interface, run

# What fp32 arithmetic in another order explains.
_TOLERANCE = 1e-3


def export(module: nn.Module, interface: Interface) -> torch.export.ExportedProgram:
    """The network as a graph in which the batch and the task's free dimensions, and only those,
    may have any size.

    Raises:
        BuildError: the network's code cannot be traced, or fixes a size that should be free.
    """
    try:
        exported = _export(module, interface)
    except Exception as error:
        raise BuildError(
            f"torch.export cannot trace {type(module).__name__}: {first_line(error)}"
        ) from error
    if _others(interface):
        _check(exported, module, interface)
    return exported


def _export(module: nn.Module, interface: Interface) -> torch.export.ExportedProgram:
    def traced(shapes: tuple[dict[int, Any], ...]) -> torch.export.ExportedProgram:
        with quiet(), torch.no_grad():
            return torch.export.export(
                module,
                interface.tensors(interface.example),
                # By position, one entry per input: a network may name its arguments as it likes.
                dynamic_shapes=_like_forward(module, shapes),
            )

    batch = torch.export.Dim("batch", min=1)
    named = _named(interface)
    try:
        return traced(tuple({0: batch, **sizes} for sizes in named))
    except Exception:
        if not _others(interface):
            raise
    # A named size must be free without bound; a table of positions ends somewhere. Here the
    # exporter finds the bounds itself, and still refuses to fix a size.
    hints = [dict.fromkeys(sizes, torch.export.Dim.DYNAMIC) for sizes in named]
    return traced(tuple({0: batch, **sizes} for sizes in hints))


def _others(interface: Interface) -> bool:
    """Whether more than the batch is free."""
    return any(-1 in spec.shape[1:] for spec in interface.inputs)


def _named(interface: Interface) -> list[dict[int, Any]]:
    """For each input its free dimensions, one object for those that share a size. Equal sizes
    within one input, such as height and width, are told apart."""
    dims: dict[tuple[int, int], Any] = {}
    found = []
    for spec in interface.inputs:
        sizes: dict[int, Any] = {}
        seen: list[int] = []
        for dimension in (d for d, size in enumerate(spec.shape) if d > 0 and size == -1):
            size = interface.example[spec.name].shape[dimension]
            key = (size, seen.count(size))
            seen.append(size)
            if key not in dims:
                dims[key] = torch.export.Dim(f"size_{len(dims) + 1}", min=1)
            sizes[dimension] = dims[key]
        found.append(sizes)
    return found


def _check(exported: torch.export.ExportedProgram, module: nn.Module, interface: Interface) -> None:
    """Raises BuildError where the program computes otherwise than the network at other sizes."""
    inputs, names = interface.resized(), tuple(spec.name for spec in interface.outputs)
    sizes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    try:
        got = run(exported.module(), inputs, names)
    except Exception as error:
        raise BuildError(
            f"the exported network does not run with {sizes}: {first_line(error)}"
        ) from error
    for name, expected in run(module, inputs, names).items():
        error_found = verify.relative_error(expected, got[name])
        if not error_found <= _TOLERANCE:
            raise BuildError(
                f"the exported network computes otherwise than the network with {sizes}: output "
                f"{name!r} has relative error {error_found:.3g}"
            )


def _like_forward(module: nn.Module, shapes: tuple[dict[int, Any], ...]) -> tuple[Any, ...]:
    # `forward(self, *inputs)` takes its shapes as one nested tuple.
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    return (shapes,) if kinds and kinds[0] is inspect.Parameter.VAR_POSITIONAL else shapes


@contextmanager
def quiet() -> Iterator[None]:
    """Keep off the user's screen what exporters warn and print about their own internals."""
    loggers = [logging.getLogger(name) for name in ("torch", "nncf", "torchao", "py.warnings")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """What an exporter's page-long message opens with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
