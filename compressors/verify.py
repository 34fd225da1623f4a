"""Checks that a variant must pass before anything about it is measured.

Pure functions of arrays and counts: they run nothing. `build` runs the network, the program in
memory and the program read back, and hands the outputs in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from compressors.errors import (
    ExportMismatch,
    NotFinite,
    NothingChanged,
    ReloadMismatch,
    ShapeChanged,
    WrongKernels,
    WrongWeights,
)
from compressors.task import Array
from router.card import Precision, StoredWeights

# The largest relative error (root of summed squares, against the network's own outputs) that
# arithmetic explains. fp32 reorders sums. bf16 keeps 8 bits: about 0.4 % a step, which adds up
# over layers. int8 is lossy by design, and how much it may lose is for the accuracy to say: here
# it is only told apart from noise, which would be an error of 1 or more.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02, "int8": 0.7}
# The same for narrower weights, which the lowering rounds. 16 bits keep 11 of a number.
WEIGHTS_TOLERANCE: dict[StoredWeights, float] = {"fp16": 0.01, "int8": 0.2, "int4": 0.7}

# Same file, same code, same threads: nothing but the order of a sum may differ.
RELOAD_TOLERANCE = 1e-5


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes: numpy has no bfloat16.
        digest.update(array.view(torch.uint8).numpy().tobytes() if array.numel() else b"")
    return digest.hexdigest()


def same_shapes(expected: Mapping[str, Array], got: Mapping[str, Array], what: str) -> None:
    """Outputs must have the reference's names, shapes and datatypes.

    Raises:
        ShapeChanged: they have others.
    """
    if list(expected) != list(got):
        raise ShapeChanged(
            f"{what}: expected outputs {', '.join(expected)}, got {', '.join(got) or 'none'}"
        )
    for name, array in expected.items():
        if array.shape != got[name].shape or array.dtype != got[name].dtype:
            raise ShapeChanged(
                f"{what}: output {name!r}: expected {array.dtype} {array.shape}, "
                f"got {got[name].dtype} {got[name].shape}"
            )


def finite(outputs: Mapping[str, Array], what: str) -> None:
    """Raises NotFinite where an output holds NaN or infinity."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise NotFinite(f"{what}: output {name!r}: {bad} of {array.size} values are not finite")


def changed(before: str, after: str, steps: str) -> None:
    """The digests of the weights before and after the steps must differ.

    Raises:
        NothingChanged: they are the same.
    """
    if before == after:
        raise NothingChanged(f"{steps} ran without an error and left every weight as it was")


def export_matches(
    network: Mapping[str, Array],
    program: Mapping[str, Array],
    precision: Precision,
    weights: StoredWeights | None = None,
) -> None:
    """The lowered program must compute what the network computes.

    Raises:
        ExportMismatch: the relative error is above the tolerance of the precision, or of the
            narrower weights where that is larger.
    """
    tolerance = max(TOLERANCE[precision], WEIGHTS_TOLERANCE[weights] if weights else 0.0)
    for name, expected in network.items():
        error = relative_error(expected, program[name])
        if not error <= tolerance:
            worst = float(np.abs(_wide(expected) - _wide(program[name])).max())
            what = f"{weights} weights" if weights else precision
            raise ExportMismatch(
                f"output {name!r}: relative error {error:.3g}, allowed for {what} is "
                f"{tolerance:g}; largest difference {worst:.3g}, "
                f"same class in {agreement(expected, program[name]):.1%} of samples"
            )


def reload_matches(memory: Mapping[str, Array], disk: Mapping[str, Array]) -> None:
    """What was read back must compute what was in memory.

    Raises:
        ReloadMismatch: it does not.
    """
    for name, expected in memory.items():
        error = relative_error(expected, disk[name])
        if not error <= RELOAD_TOLERANCE:
            raise ReloadMismatch(
                f"output {name!r}: the file read back differs from what was written, "
                f"relative error {error:.3g}"
            )


def right_kernels(kernels: Mapping[str, int], precision: Precision) -> None:
    """What executed must be what the card would claim: for int8 and bf16 most operations (a first
    or last layer may stay in float), for fp32 every one.

    Raises:
        WrongKernels: it is not.
    """
    total = sum(kernels.values())
    share = kernels.get(precision, 0) / total if total else 0.0
    if share < 1 if precision == "fp32" else share <= 0.5:
        ran = ", ".join(f"{count} in {name}" for name, count in sorted(kernels.items())) or "none"
        need = "all" if precision == "fp32" else "more than half"
        raise WrongKernels(
            f"the variant claims {precision}, and of its operations ran: {ran}; {need} must run "
            f"in {precision}"
        )


def right_weights(stored: Mapping[str, int], weights: StoredWeights | None) -> None:
    """The file must hold what the card would claim: most numbers as narrow as `weights` or
    narrower, and for int4, whose first and last layers may keep 8 bits, more than in float.

    Args:
        stored: how many numbers the file holds at each width: `{"int8": 5000, "fp32": 120}`.

    Raises:
        WrongWeights: it does not.
    """
    if weights is None:
        return
    narrower: dict[StoredWeights, tuple[str, ...]] = {
        "fp16": ("fp16", "int8", "int4"),
        "int8": ("int8", "int4"),
        "int4": ("int8", "int4"),
    }
    narrow = sum(stored.get(width, 0) for width in narrower[weights])
    wide = sum(stored.values()) - narrow
    if narrow <= wide or stored.get(weights, 0) <= (wide if weights == "int4" else 0):
        held = ", ".join(f"{count} in {name}" for name, count in sorted(stored.items())) or "none"
        raise WrongWeights(f"the variant claims {weights} weights, and its file holds: {held}")


def relative_error(expected: Array, got: Array) -> float:
    """Root of summed squared differences over that of the expected values; NaN where one is."""
    wide = _wide(expected)
    scale = float(np.sqrt((wide**2).sum()))
    error = float(np.sqrt(((wide - _wide(got)) ** 2).sum()))
    return error / scale if scale else error


def agreement(expected: Array, got: Array) -> float:
    """Share of rows whose largest entry is at the same place."""
    flat = [array.reshape(len(array), -1).argmax(axis=1) for array in (expected, got)]
    return float((flat[0] == flat[1]).mean())


def _wide(array: Array) -> Array:
    return array.astype(np.float64)
