"""Gearshift, with its defaults: the network as a variant, constraints on each request."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.bench.peers import network
from tests.bench.peers.contract import (
    CLASSES,
    MAX_BATCH,
    PIXELS,
    Ask,
    Form,
    Peer,
    v2_binary,
    v2_json,
    v2_logits,
)

_PATH = "/v2/models/network/infer"
_DEMANDS = {"Gearshift-Max-Latency-Ms": "1000", "Gearshift-Min-Accuracy": "0.5"}


def store(work: Path) -> Path:
    """A store of the network as one variant; its card says how long it takes here."""
    from gateway.engines import onnxruntime as engine
    from router.card import TensorSpec
    from tests.bench import shelf

    models = work / "gearshift"
    if not models.exists():
        shelf.put(
            models,
            "network",
            "fp32",
            engine="onnxruntime",
            form=engine.FORMAT,
            write=lambda folder: shutil.copy(work / network.GRAPH_FILE, folder / engine.MODEL_FILE),
            took_ms=_measured_ms(work),
            inputs=[TensorSpec(name=network.INPUT, datatype="FP32", shape=(-1, PIXELS))],
            outputs=[TensorSpec(name=network.OUTPUT, datatype="FP32", shape=(-1, CLASSES))],
        )
    return models


def _measured_ms(work: Path) -> dict[int, float]:
    import statistics
    import time

    import numpy as np

    run = network.load(work)
    took_ms = {}
    for batch in (1, MAX_BATCH):
        rows = np.random.default_rng(0).random((batch, PIXELS), dtype=np.float32)
        times = []
        for _ in range(50):
            started_s = time.perf_counter()
            run(rows)
            times.append((time.perf_counter() - started_s) * 1000)
        took_ms[batch] = statistics.median(times)
    return took_ms


def _demanding(ask: Callable[[bytes], Ask]) -> Callable[[bytes], Ask]:
    def asked(row: bytes) -> Ask:
        plain = ask(row)
        return replace(plain, headers={**plain.headers, **_DEMANDS})

    return asked


def _command(binaries: Path, work: Path, port: int) -> tuple[str, ...]:
    return (
        *(str(binaries / "python"), "-m", "gateway.cli", "serve", "--models", str(store(work))),
        *("--port", str(port), "--max-batch", str(MAX_BATCH)),
    )


PEER = Peer(
    name="Gearshift",
    version="this commit",
    requirements=(),
    command=_command,
    ready="/v2/health/ready",
    forms={
        "json": Form(_demanding(v2_json(_PATH, network.INPUT)), v2_logits, "v2 JSON"),
        "binary": Form(
            _demanding(v2_binary(_PATH, network.INPUT, network.OUTPUT)),
            v2_logits,
            "v2 binary tensors",
        ),
    },
    setup="defaults; a deadline and a floor on each request",
)

# Measured as a server of its own.
WORKERS = replace(
    PEER,
    name="Gearshift, 2 workers",
    command=lambda binaries, work, port: (*_command(binaries, work, port), "--workers", "2"),
    setup="`--workers 2`; a deadline and a floor on each request",
)
