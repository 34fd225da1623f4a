"""How much of a compute-bound network's own speed is left behind the gateway.

A ResNet-18 for pictures of 32x32 and the MiniLM encoder on 64 tokens, lowered to OpenVINO by the
compressors, each in float and in int8. A plain loop runs the compiled network at its best batch on
one thread. The gateway runs the same files on one lane of one thread, over HTTP, one row a request,
with routing, metrics, a deadline and a floor. They take turns, round after round; the gateway's
event loop and the clients have the other core.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressors import lowering
from compressors.interface import Interface
from compressors.sources import MeanPooled, huggingface, minilm
from compressors.task import Samples
from compressors.technique import Network, Numerics
from gateway.engines import NUMPY_TYPES, Program
from gateway.engines import openvino as engine
from router.card import TensorSpec
from tests.bench import servers, shelf, steady
from tests.bench.load import Post

_BATCHES = (1, 2, 4, 8, 16, 32)
_CONNECTIONS = 64
_CALIBRATION, _WORDS, _TOKENS = 32, 30000, 64
_PRECISIONS = {"fp32": 0.95, "int8": 0.94}


@dataclass(frozen=True)
class Subject:
    """A network, and rows to ask it."""

    name: str
    network: Callable[[], nn.Module]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rows: Callable[[int], dict[str, Any]]
    options: dict[str, Any]


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        same = before == width and stride == 1
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def resnet18() -> nn.Module:
    """ResNet-18 (He et al. 2015, arXiv 1512.03385) with the stem for 32x32 pictures, untrained:
    0.56 G multiplications a row."""
    torch.manual_seed(2026)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    before = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Block(before, width, stride), _Block(width, width, 1)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)).eval()


def _pictures(count: int) -> dict[str, Any]:
    return {"image": np.random.default_rng(0).random((count, 3, 32, 32), dtype=np.float32)}


def _passages(count: int) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(1000, _WORDS, (count, _TOKENS), dtype=np.int64)
    return {"ids": ids, "mask": np.ones((count, _TOKENS), dtype=np.int64)}


SUBJECTS = (
    Subject(
        "ResNet-18",
        resnet18,
        (TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 32, 32)),),
        (TensorSpec(name="logits", datatype="FP32", shape=(-1, 10)),),
        _pictures,
        {},
    ),
    Subject(
        "MiniLM",
        lambda: huggingface(minilm(), MeanPooled()),
        tuple(
            TensorSpec(name=name, datatype="INT64", shape=(-1, _TOKENS)) for name in ("ids", "mask")
        ),
        (TensorSpec(name="embedding", datatype="FP32", shape=(-1, 384)),),
        _passages,
        {"model_type": "transformer"},
    ),
)


def computebound(work: Path, *, rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Rows a second of loop and gateway, by network and precision, and their ratio by round."""
    results: dict[str, dict[str, Any]] = {}
    programs = {subject.name: _shelve(work, subject) for subject in SUBJECTS}
    with servers.gateway(work, lanes=1) as address:
        for subject in SUBJECTS:
            for precision in _PRECISIONS:
                program = programs[subject.name][precision]
                post = _post(address, subject, precision)
                results[f"{subject.name} {precision}"] = _compared(
                    program, subject, post, rounds, seconds
                )
    return results


def _shelve(work: Path, subject: Subject) -> dict[str, Program]:
    example = subject.rows(4)
    interface = Interface(subject.inputs, subject.outputs, example)
    made = {}
    for precision, accuracy in _PRECISIONS.items():
        samples = Samples(subject.rows(_CALIBRATION), np.zeros(_CALIBRATION, dtype=np.int64))
        numerics = (
            Numerics(precision="int8", calibration=samples, options=subject.options)
            if precision == "int8"
            else Numerics()
        )
        network = Network(subject.network(), numerics)
        lowered: list[Program] = []

        def lower(folder: Path, network: Network = network, into: list[Program] = lowered) -> None:
            into.append(lowering.get("openvino").lower(network, interface, folder))

        folder = work / "unsealed" / f"{_slug(subject)}-{precision}"
        folder.mkdir(parents=True)
        lower(folder)
        program = lowered[0]
        shelf.put(
            work,
            _slug(subject),
            precision,
            engine="openvino",
            form=engine.FORMAT,
            write=lambda to, folder=folder: [
                each.rename(to / each.name) for each in folder.iterdir()
            ],
            took_ms={rows: 1000 * rows / _loop(program, subject, rows, 0.5) for rows in (1, 32)},
            inputs=subject.inputs,
            outputs=subject.outputs,
            accuracy=accuracy,
            precision=precision,
        )
        folder.rmdir()
        made[precision] = program
    (work / "unsealed").rmdir()
    return made


def _slug(subject: Subject) -> str:
    return subject.name.lower().replace("-", "")


def _compared(
    program: Program, subject: Subject, post: Post, rounds: int, seconds: float
) -> dict[str, Any]:
    speeds = {batch: _loop(program, subject, batch, 0.7) for batch in _BATCHES}
    best = max(_BATCHES, key=lambda batch: speeds[batch])
    loops, served = [], []
    for _ in range(rounds):
        loops.append(_loop(program, subject, best, seconds / 4))
        served.append(
            steady.rate(post, connections=_CONNECTIONS, seconds=seconds, skip=_CONNECTIONS)
        )
        loops[-1] = (loops[-1] + _loop(program, subject, best, seconds / 4)) / 2
    ratios = [mine / bare for mine, bare in zip(served, loops, strict=True)]
    return {
        "best_batch": best,
        "loop_rows_per_second": statistics.median(loops),
        "gateway_rows_per_second": statistics.median(served),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def _loop(program: Program, subject: Subject, batch: int, seconds: float) -> float:
    inputs = subject.rows(batch)
    for _ in range(2):
        program.infer(inputs)
    started_s, runs = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        program.infer(inputs)
        runs += 1
    return runs * batch / elapsed_s


def _post(address: str, subject: Subject, precision: str) -> Post:
    rows = subject.rows(1)
    tensors, raw = [], b""
    for spec in subject.inputs:
        data = np.ascontiguousarray(rows[spec.name], dtype=NUMPY_TYPES[spec.datatype]).tobytes()
        raw += data
        tensors.append(
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": [1, *spec.shape[1:]],
                "parameters": {"binary_data_size": len(data)},
            }
        )
    wanted = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in subject.outputs]
    head = json.dumps({"inputs": tensors, "outputs": wanted}).encode()
    demands = {
        "Gearshift-Max-Latency-Ms": "10000",
        "Gearshift-Min-Accuracy": "0.9",
        "Gearshift-Variant": precision,
    }
    return Post(
        f"{address}/v2/models/{_slug(subject)}/infer",
        head + raw,
        {"Inference-Header-Content-Length": str(len(head)), **demands},
    )
