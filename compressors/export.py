"""torch.export with a free batch dimension: the first half of every lowering."""

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

from compressors.errors import BuildError
from compressors.interface import Interface


def export(module: nn.Module, interface: Interface) -> torch.export.ExportedProgram:
    """The network as a graph whose batch, and only that, is free.

    Raises:
        BuildError: the network's code cannot be traced, or fixes the batch size.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(
                module,
                interface.tensors(interface.example),
                # By position, one entry per input: a network may name its arguments as it likes.
                dynamic_shapes=_like_forward(module, tuple({0: batch} for _ in interface.inputs)),
            )
    except Exception as error:
        raise BuildError(
            f"torch.export cannot trace {type(module).__name__}: {first_line(error)}"
        ) from error


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
