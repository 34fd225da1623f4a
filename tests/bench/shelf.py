"""Stores of real networks for the benchmarks, without a build: files, and a card around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from router.card import CARD_FILE, EngineRecord, LatencyPoint, TensorSpec, VariantCard
from tests.stores import seal, write_variant


def put(
    models: Path,
    model: str,
    variant: str,
    *,
    engine: str,
    form: str,
    write: Callable[[Path], Any],
    took_ms: Mapping[int, float],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    accuracy: float = 0.95,
    precision: str = "fp32",
) -> Path:
    """A variant of `model`; returns its folder.

    Args:
        engine, form: as in `gateway.engines`, and one of its formats.
        write: writes the engine's files into the folder that it is given.
        took_ms: median time of one batch, by its rows.
        accuracy: a figure for the router to work with; nobody measured it.
    """
    folder = write_variant(
        models,
        model,
        variant,
        accuracy=accuracy,
        precision=precision,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )
    (folder / "echo.json").unlink()
    write(folder)
    card = VariantCard.model_validate_json((folder / CARD_FILE).read_text())
    made = card.model_copy(
        update={
            "engine": EngineRecord(name=engine, version="any", format=form, kernels={precision: 1}),
            "latency": tuple(
                LatencyPoint(
                    batch=rows, threads=1, runs=20, p50_ms=ms, p95_ms=ms, p99_ms=ms, spread_ms=0.0
                )
                for rows, ms in took_ms.items()
            ),
        }
    )
    (folder / CARD_FILE).write_text(made.model_dump_json(), encoding="utf-8")
    seal(folder)
    return folder
