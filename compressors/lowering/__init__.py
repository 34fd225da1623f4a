"""Lowering: a network becomes an engine's program files. One file = one engine; same names.

To add one, put a file here, called as the engine is, that defines `LOWERING`:

    class _Lowering:
        def version(self) -> dict[str, str]: ...

        def format(self, network: Network, folder: Path | None = None) -> str: ...

        def lower(self, network: Network, interface: Interface, folder: Path) -> Program: ...

    LOWERING = _Lowering()

Files are written flat into `folder`, with names that a manifest accepts. Several engines may write
into the same folder, each under names of its own:

    openvino       model.xml, model.bin    openvino-ir
    onnxruntime    model.onnx              onnx
    torch          model.pt2               torch-aotinductor, or torch-export without a compiler
    torch          weights.safetensors     task: the network cannot be exported

What comes back is the program as it is in memory, before it was written: `verify` runs it beside
the one read back.

A network that cannot be exported is kept by the torch engine as weights for the task's own network.
Whoever drafts or writes a card therefore asks `format(network, folder)` after `lower`, and sets the
engine record's `constructor` and its digest to the interface's where that format is "task" and to
None otherwise. Such a network fails with BuildError on the other engines: the variant is built when
one of its engines succeeded.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from compressors.errors import BuildError, NotSupported, RecipeError
from compressors.interface import Interface
from compressors.technique import Network
from gateway.engines import EngineMissing, Program


class Lowering(Protocol):
    """What a file of this folder provides as `LOWERING`."""

    def version(self) -> dict[str, str]:
        """Packages that shape the result, with their versions, for the card."""
        ...

    def format(self, network: Network, folder: Path | None = None) -> str:
        """The artifact format that `lower` wrote into `folder`; without one, the format that it
        would try first here."""
        ...

    def lower(self, network: Network, interface: Interface, folder: Path) -> Program:
        """Write the programs of `network` into `folder`, which exists and holds nothing of this
        engine's.

        The network is in eval mode. `network.numerics` says in which precision to execute; for
        int8 its `calibration` holds the samples to observe and `options` the technique's wishes:
        `preset` and `fast_bias_correction`, as NNCF names them. An option that the engine does
        not know is refused.

        Raises:
            NotSupported: this machine or this engine cannot execute that precision.
            BuildError: it cannot be exported; the message names the operation.
        """
        ...


def names() -> list[str]:
    """The engines that something can be lowered to, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Lowering:
    """The lowering to the engine called `name`.

    Raises:
        RecipeError: there is none.
        NotSupported: the extra that it needs is not installed.
        BuildError: its file is broken; the message names the file.
    """
    if name not in names():
        raise RecipeError(
            f"unknown engine {name!r}; variants can be built for {', '.join(names())}"
        )
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except BuildError:
        raise
    except EngineMissing as error:
        raise NotSupported(str(error)) from error
    except Exception as error:
        raise BuildError(f"compressors/lowering/{name}.py cannot be imported: {error!r}") from error
    return cast(Lowering, module.LOWERING)
