"""How much of an engine's own speed is left behind the gateway.

A plain loop runs the compiled network at its best batch on one thread; the gateway runs the same
artifact on one lane of one thread, fed over HTTP, with routing, batching and metrics on. Both do
the same work on one core; the gateway's event loop and the load generator share the other. They
take turns, round after round.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from gateway import engines
from gateway.lifecycle import catalog
from tests.bench import servers
from tests.bench.load import Post, run

_BATCHES = (1, 2, 4, 8, 16, 32)


def throughput(
    models: Path, model: str, variants: list[str], *, rounds: int, seconds: float, rows: int
) -> dict[str, Any]:
    """Rows per second of both, by variant; each request carries `rows` rows as a binary tensor."""
    entries = catalog.usable(models).models[model]
    results: dict[str, Any] = {}
    with servers.gateway(models, lanes=1) as address:
        for variant in variants:
            card = entries[variant].card
            program = engines.get(card.engine.name).load(
                entries[variant].folder, card, threads=1, trusted=True
            )
            spec = card.inputs[0]
            post = _post(address, model, variant, spec.name, spec.shape[1:], rows)
            best = max(_BATCHES, key=lambda n: _loop(program, spec.name, spec.shape[1:], n, 1.0))
            run(post, connections=64, seconds=1)
            loops, served, errors = [], [], 0
            for _ in range(rounds):
                loops.append(_loop(program, spec.name, spec.shape[1:], best, seconds))
                figures = run(post, connections=64, seconds=seconds)
                served.append(figures.requests_per_second * rows)
                errors += figures.errors
            ratios = [mine / bare for mine, bare in zip(served, loops, strict=True)]
            results[variant] = {
                "best_batch": best,
                "loop_rows_per_second": statistics.median(loops),
                "gateway_rows_per_second": statistics.median(served),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "errors": errors,
            }
            program.close()
    return results


def _loop(
    program: engines.Program, name: str, shape: tuple[int, ...], batch: int, seconds: float
) -> float:
    inputs = {name: np.random.default_rng(0).random((batch, *shape), dtype=np.float32)}
    for _ in range(3):
        program.infer(inputs)
    started, runs = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        program.infer(inputs)
        runs += 1
    return runs * batch / elapsed


def _post(
    address: str, model: str, variant: str, name: str, shape: tuple[int, ...], rows: int
) -> Post:
    raw = np.random.default_rng(0).random((rows, *shape), dtype=np.float32).tobytes()
    tensor = {
        "name": name,
        "datatype": "FP32",
        "shape": [rows, *shape],
        "parameters": {"binary_data_size": len(raw)},
    }
    wanted = {"name": "logits", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
    return Post(
        f"{address}/v2/models/{model}/infer",
        head + raw,
        {"Inference-Header-Content-Length": str(len(head)), "Gearshift-Variant": variant},
    )
