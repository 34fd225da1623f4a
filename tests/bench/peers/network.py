"""The network that everybody serves: 784-1024-1024-10, its weights drawn with one seed.

The weights are a file of arrays, and the graph of ONNX Runtime is made from it: of the engines at
hand that is the fastest in float on this network. Everybody runs it with the same options.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.peers.contract import CLASSES, PIXELS

WEIGHTS_FILE, GRAPH_FILE = "network.npz", "network.onnx"
INPUT, OUTPUT = "image", "logits"
_WIDTHS = (PIXELS, 1024, 1024, CLASSES)
_SEED = 2026


def write(folder: Path) -> None:
    """Write the weights, and the graph that holds them, into `folder`."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(_SEED)
    arrays: dict[str, Any] = {}
    nodes, before = [], INPUT
    layers = list(itertools.pairwise(_WIDTHS))
    for at, (wide, high) in enumerate(layers):
        drawn = rng.standard_normal((wide, high), dtype=np.float32)
        arrays[f"w{at}"] = drawn * np.float32((2 / wide) ** 0.5)
        arrays[f"b{at}"] = rng.standard_normal(high, dtype=np.float32) * np.float32(0.1)
        last = at == len(layers) - 1
        sums = OUTPUT if last else f"sums{at}"
        nodes.append(helper.make_node("Gemm", [before, f"w{at}", f"b{at}"], [sums]))
        if not last:
            before = f"hidden{at}"
            nodes.append(helper.make_node("Relu", [sums], [before]))
    np.savez(folder / WEIGHTS_FILE, **arrays)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", PIXELS])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save_model(model, folder / GRAPH_FILE)


def load(folder: Path, threads: int = 1) -> Callable[[Any], Any]:
    """A function from (n, 784) float32 to (n, 10) float32."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        str(folder / GRAPH_FILE), options, providers=["CPUExecutionProvider"]
    )
    return lambda rows: session.run([OUTPUT], {INPUT: rows})[0]


def expected(folder: Path, row: bytes) -> list[float]:
    """What the network says of one row, by numpy and the weights alone."""
    import numpy as np

    with np.load(folder / WEIGHTS_FILE) as arrays:
        values = np.frombuffer(row, np.float32).astype(np.float64)
        for at in range(len(_WIDTHS) - 1):
            values = values @ arrays[f"w{at}"] + arrays[f"b{at}"]
            if at < len(_WIDTHS) - 2:
                values = np.maximum(values, 0)
        return [float(value) for value in values]
