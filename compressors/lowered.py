"""One network lowered to each engine, each program checked: which can serve, and why others cannot.

A program that fails a check is out; so is an engine that cannot run the network at all.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressors import lowering, resizing, verify
from compressors.draft import draft_card
from compressors.errors import BuildError, NotSupported, StoreError
from compressors.export import first_line
from compressors.interface import Interface
from compressors.interface import run as run_network
from compressors.networks import out_of_memory
from compressors.progress import Advance, ticking, within
from compressors.task import Array
from compressors.technique import Network
from compressors.threads import threads_kept
from gateway import engines
from gateway.engines import EngineError, Program
from gateway.engines.torch import TASK
from router.card import VariantCard

# What an engine takes to lower one network, in seconds, for the bar and for estimates: measured
# on networks of 0.7 to 22 M parameters. AOTInductor runs a C++ compiler.
LOWERING_SECONDS = {"openvino": 3.0, "onnxruntime": 5.0, "torch": 18.0}
LOWERING_SECONDS_OTHERWISE = 5.0

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
