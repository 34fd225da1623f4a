"""Engines: what executes a variant. One file = one engine; the file's name is its public name.

To add one, put a file here that defines `ENGINE`, an object with the three members of `Engine`:

    class _Engine:
        formats = ("my-format",)

        def version(self) -> str: ...

        def load(
            self, folder: Path, card: VariantCard, *, threads: int, trusted: bool
        ) -> Program: ...

    ENGINE = _Engine()

The compressors measure through `load`, so what a card says is what this very code did. This
package imports nothing of the gateway, and no web framework.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from router.card import VariantCard

Tensor = NDArray[Any]
Tensors = Mapping[str, Tensor]

# v2 datatype -> numpy; the one table that engines and protocols share. The elements of BYTES are
# Python's `bytes`.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}


def blank(datatype: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of zeros, or of empty strings, which are valid in their datatype."""
    return np.full(shape, b"" if datatype == "BYTES" else 0, NUMPY_TYPES[datatype])


class EngineError(Exception):
    """An engine cannot load or run a variant."""


class EngineMissing(EngineError):
    """The package that an engine needs is not installed. The message names the extra."""


class UntrustedArtifact(EngineError):
    """The artifact can carry code and its store was not marked as trusted."""


class Program(Protocol):
    """A loaded variant. `infer` is called by one thread at a time; one `Program` per lane."""

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        """Run one batch. `inputs`: the card's inputs by name, each (batch, ...). Returns the
        card's outputs by name, each (batch, ...), in memory that the caller owns.

        Raises:
            EngineError: the engine failed.
        """
        ...

    def kernels(self) -> dict[str, int]:
        """How many operations really execute at each precision: `{"int8": 21, "fp32": 3}`."""
        ...

    def close(self) -> None:
        """Free what the program holds. Calling it twice does nothing."""
        ...


@runtime_checkable
class Engine(Protocol):
    """What a file of this folder provides as `ENGINE`."""

    formats: tuple[str, ...]
    """The artifact formats that it loads, as `card.engine.format` names them."""

    def version(self) -> str:
        """The version of the library that executes."""
        ...

    def load(self, folder: Path, card: VariantCard, *, threads: int, trusted: bool) -> Program:
        """Load the variant of `folder` to run on `threads` threads.

        Raises:
            UntrustedArtifact: the format can carry code and `trusted` is false.
            EngineError: anything else that keeps it from running.
        """
        ...


def names() -> list[str]:
    """The engines of this folder, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Engine:
    """The engine called `name`.

    Raises:
        EngineMissing: the extra that it needs is not installed.
        EngineError: there is no such engine, or its file is broken; the message names the file.
    """
    if name not in names():
        raise EngineError(f"unknown engine {name!r}; there are {', '.join(names())}")
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except EngineMissing:
        raise
    except Exception as error:
        raise EngineError(f"gateway/engines/{name}.py cannot be imported: {error!r}") from error
    return cast(Engine, module.ENGINE)
