"""What the gateway costs: with an engine that does nothing, against routes that do nothing.

The servers take turns, round after round, in one run; the figures are medians over the rounds and
the ratios are of the same round. All routing, queueing, batching and metrics are on.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import bare, servers
from tests.bench.load import Figures, Post, run
from tests.stores import noop_store

_DEMANDS = {"Gearshift-Max-Latency-Ms": "1000", "Gearshift-Min-Accuracy": "0.5"}


def overhead(*, rounds: int, seconds: float) -> dict[str, Any]:
    """Requests per second and latency, by server and connections, with the ratios to Starlette."""
    image = np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        models = Path(folder)
        noop_store(models)
        own = stack.enter_context(servers.gateway(models, lanes=1))
        starlette = stack.enter_context(servers.bare("starlette_app"))
        fastapi = stack.enter_context(servers.bare("fastapi_app"))
        posts = {
            "Starlette, binary body": post(starlette, image, binary=True),
            "Starlette, JSON body": post(starlette, image, binary=False),
            "FastAPI, JSON body": post(fastapi, image, binary=False),
            "gateway, binary": post(own, image, binary=True),
            "gateway, JSON": post(own, image, binary=False),
        }
        measured: dict[int, dict[str, list[Figures]]] = {}
        for connections in (1, 32):
            for name in posts:  # a first round to warm up, not counted
                run(posts[name], connections=connections, seconds=1)
            figures = measured.setdefault(connections, {name: [] for name in posts})
            for _ in range(rounds):
                for name, asked in posts.items():
                    figures[name].append(run(asked, connections=connections, seconds=seconds))
    return {
        str(connections): {
            name: _summary(found, figures[_baseline(name)]) for name, found in figures.items()
        }
        for connections, figures in measured.items()
    }


def _baseline(name: str) -> str:
    return "Starlette, binary body" if "binary" in name else "Starlette, JSON body"


def _summary(found: list[Figures], baseline: list[Figures]) -> dict[str, float]:
    ratios = [
        mine.requests_per_second / theirs.requests_per_second
        for mine, theirs in zip(found, baseline, strict=True)
    ]
    return {
        "requests_per_second": statistics.median(f.requests_per_second for f in found),
        "p50_ms": statistics.median(f.p50_ms for f in found),
        "p99_ms": statistics.median(f.p99_ms for f in found),
        "ratio_to_starlette": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "errors": sum(f.errors for f in found),
    }


def post(address: str, image: np.ndarray, *, binary: bool) -> Post:
    """A request with one picture, a deadline and a floor."""
    tensor: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": list(image.shape)}
    if not binary:
        tensor["data"] = [round(float(x), 4) for x in image.ravel()]
        body = json.dumps({"inputs": [tensor]}).encode()
        return Post(address + bare.PATH, body, {"Content-Type": "application/json", **_DEMANDS})
    raw = image.tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor]}).encode()
    return Post(
        address + bare.PATH,
        head + raw,
        {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
            **_DEMANDS,
        },
    )
