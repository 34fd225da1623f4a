"""The checks themselves; that a build runs them is in test_build.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressors import verify
from compressors.errors import (
    ExportMismatch,
    NotFinite,
    NothingChanged,
    ReloadMismatch,
    ShapeChanged,
    WrongKernels,
)

OUTPUTS = {"logits": np.random.default_rng(0).normal(size=(16, 10)).astype(np.float32)}


def noisy(relative: float) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1).normal(size=(16, 10)).astype(np.float32)
    scale = relative * np.linalg.norm(OUTPUTS["logits"]) / np.linalg.norm(noise)
    return {"logits": OUTPUTS["logits"] + scale * noise}


def test_shapes() -> None:
    verify.same_shapes(OUTPUTS, OUTPUTS, "it")
    for other, told in (
        (
            {"logits": OUTPUTS["logits"][:, :9]},
            r"expected float32 \(16, 10\), got float32 \(16, 9\)",
        ),
        ({"logits": OUTPUTS["logits"].astype(np.float64)}, "got float64"),
        ({"scores": OUTPUTS["logits"]}, "expected outputs logits, got scores"),
    ):
        with pytest.raises(ShapeChanged, match=told):
            verify.same_shapes(OUTPUTS, other, "it")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value: float) -> None:
    broken = {"logits": OUTPUTS["logits"].copy()}
    broken["logits"][3, 4] = value
    verify.finite(OUTPUTS, "it")
    with pytest.raises(NotFinite, match="1 of 160 values"):
        verify.finite(broken, "it")
    with pytest.raises(ExportMismatch):
        verify.export_matches(OUTPUTS, broken, "int8")


@pytest.mark.parametrize(
    ("precision", "passes", "fails"),
    [("fp32", 5e-4, 2e-3), ("bf16", 0.05, 0.2), ("int8", 0.5, 1.0)],
)
def test_export(precision: str, passes: float, fails: float) -> None:
    verify.export_matches(OUTPUTS, noisy(passes), precision)  # type: ignore[arg-type]
    with pytest.raises(ExportMismatch, match=r"relative error .* same class in"):
        verify.export_matches(OUTPUTS, noisy(fails), precision)  # type: ignore[arg-type]


def test_reload() -> None:
    verify.reload_matches(OUTPUTS, noisy(1e-6))
    with pytest.raises(ReloadMismatch):
        verify.reload_matches(OUTPUTS, noisy(1e-4))


@pytest.mark.parametrize(
    ("kernels", "precision"),
    [
        ({"fp32": 4}, "int8"),
        ({"fp32": 4, "int8": 4}, "int8"),
        ({"fp32": 4}, "bf16"),
        ({"bf16": 1, "fp32": 9}, "fp32"),
        ({}, "int8"),
    ],
)
def test_wrong_kernels(kernels: dict[str, int], precision: str) -> None:
    with pytest.raises(WrongKernels, match=f"claims {precision}"):
        verify.right_kernels(kernels, precision)  # type: ignore[arg-type]


def test_right_kernels() -> None:
    verify.right_kernels({"int8": 20, "fp32": 2}, "int8")
    verify.right_kernels({"bf16": 3}, "bf16")
    verify.right_kernels({"fp32": 3}, "fp32")


def test_a_digest_sees_one_weight_and_one_buffer() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = verify.weights_digest(network)
    assert before == verify.weights_digest(network)
    with torch.no_grad():
        network[1].running_mean[0] += 1e-6
    after = verify.weights_digest(network)
    verify.changed(before, after, "a step")
    with pytest.raises(NothingChanged, match="a step"):
        verify.changed(after, verify.weights_digest(network), "a step")


def test_a_digest_of_bfloat16() -> None:
    network = nn.Linear(3, 2)
    assert verify.weights_digest(network) != verify.weights_digest(network.to(torch.bfloat16))
