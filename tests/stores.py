"""Stores of echo variants with any card: valid in every way, and built in milliseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from router.card import (
    CARD_FILE,
    SCORES_FILE,
    Accuracy,
    EngineRecord,
    LatencyPoint,
    Machine,
    PairedDifference,
    TaskRecord,
    TensorSpec,
    VariantCard,
)
from router.manifest import MANIFEST_FILE, Manifest
from router.padding import Padding
from router.processor import Processor

IMAGE = TensorSpec(name="image", datatype="FP32", shape=(-1, 4))
LOGITS = TensorSpec(name="logits", datatype="FP32", shape=(-1, 3))

_DIGEST = "0" * 64
_SAMPLES = 1000


def write_variant(
    models: Path,
    model: str,
    variant: str,
    *,
    accuracy: float = 0.95,
    half_interval: float = 0.01,
    paired: float | None = None,
    reference: str = "fp32",
    reference_accuracy: float = 0.95,
    latency_ms_at_1: float = 1.0,
    latency_ms_at_32: float = 8.0,
    tail_ms: float = 0.0,
    precision: str = "fp32",
    inputs: tuple[TensorSpec, ...] = (IMAGE,),
    outputs: tuple[TensorSpec, ...] = (LOGITS,),
    labels: tuple[str, ...] | None = None,
    processor: Processor | None = None,
    files: Mapping[str, bytes] | None = None,
    resident_bytes: int = 4000,
    padding: tuple[Padding, ...] = (),
    **echo: Any,
) -> Path:
    """Write a variant that the echo engine runs; returns its folder.

    Args:
        half_interval: half the width of the accuracy's 95 % interval.
        paired: lower end of the paired difference's interval; by default half a point below the
            difference itself.
        tail_ms: how far the 99th percentile of a batch's time is above the median; the 95th is a
            quarter of that above it.
        files: what else lies in the folder, by name.
        echo: what `echo.json` holds, such as `delay_ms=50` or `fail_load=True`.
    """
    folder = models / model / variant
    folder.mkdir(parents=True)
    (folder / "echo.json").write_text(json.dumps(echo), encoding="utf-8")
    for name, raw in (files or {}).items():
        (folder / name).write_bytes(raw)
    # The first so many samples are right, so that paired scores agree with the figures.
    scores = (np.arange(_SAMPLES) < round(accuracy * _SAMPLES)).astype(np.float64)
    save_file({"scores": scores, "clusters": np.arange(_SAMPLES)}, folder / SCORES_FILE)
    difference = 0.0 if variant == reference else accuracy - reference_accuracy
    low = min(difference, paired if paired is not None else difference - 0.005)
    card = VariantCard(
        schema_version=1,
        model=model,
        variant=variant,
        description=f"echo {variant}",
        reference=reference,
        recipe=(),
        parent_digest=_DIGEST,
        precision=precision,  # type: ignore[arg-type]
        task=TaskRecord(
            name=model,
            metric="accuracy",
            split="test",
            samples=_SAMPLES,
            clusters=_SAMPLES,
            labels=labels,
        ),
        accuracy=Accuracy(
            value=accuracy,
            low=max(0.0, accuracy - half_interval),
            high=min(1.0, accuracy + half_interval),
            method="wilson",
        ),
        paired=PairedDifference(
            value=difference, low=low, high=difference + (difference - low), method="bootstrap"
        ),
        latency=tuple(
            LatencyPoint(
                batch=batch,
                threads=1,
                runs=100,
                p50_ms=ms,
                p95_ms=ms + tail_ms / 4,
                p99_ms=ms + tail_ms,
                spread_ms=0.0,
            )
            for batch, ms in ((1, latency_ms_at_1), (32, latency_ms_at_32))
        ),
        machine=Machine(
            cpu="a test's",
            cores=2,
            memory_bytes=1 << 33,
            instruction_sets=(),
            system="Linux",
            fingerprint=_DIGEST,
        ),
        engine=EngineRecord(name="echo", version="1", format="echo", kernels={"fp32": 1}),
        inputs=inputs,
        outputs=outputs,
        processor=processor,
        parameters=1000,
        bytes_on_disk=4000,
        resident_bytes=resident_bytes,
        padding=padding,
        build_seconds=0.1,
        created="2026-01-01T00:00:00Z",
        versions={},
        seeds={},
    )
    (folder / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Write the manifest of what the folder holds now."""
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != MANIFEST_FILE
    }
    text = Manifest(schema_version=1, files=files).model_dump_json()
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def write_three(models: Path, model: str = "echo", **echo: Any) -> None:
    """A frontier of three: `fp32` the most accurate, `int8` half its time, `small` a tenth."""
    write_variant(
        models, model, "fp32", accuracy=0.95, latency_ms_at_1=2.0, latency_ms_at_32=20.0, **echo
    )
    write_variant(
        models, model, "int8", accuracy=0.94, latency_ms_at_1=1.0, latency_ms_at_32=10.0, **echo
    )
    write_variant(
        models, model, "small", accuracy=0.90, latency_ms_at_1=0.2, latency_ms_at_32=2.0, **echo
    )


def noop_store(models: Path) -> None:
    """The model `noop`: eight variants that do nothing, so what is left is the gateway's cost."""
    for number in range(8):
        write_variant(
            models,
            "noop",
            f"v{number}" if number else "fp32",
            accuracy=0.95 - 0.01 * number,
            latency_ms_at_1=0.1 - 0.01 * number,
            latency_ms_at_32=0.1 - 0.01 * number,
            inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 28, 28)),),
            outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, 10)),),
        )


def write_honest(models: Path, model: str = "echo") -> None:
    """A frontier of three that are as slow as their cards say: 200, 60 and 4 ms.

    The gateway believes what it sees more than the card, so an engine that does nothing would
    soon be predicted to take no time.
    """
    for variant, accuracy, ms in (("fp32", 0.95, 200), ("int8", 0.93, 60), ("small", 0.90, 4)):
        write_variant(
            models,
            model,
            variant,
            accuracy=accuracy,
            latency_ms_at_1=ms,
            latency_ms_at_32=4 * ms,
            delay_ms=ms,
        )
