"""How much memory a variant takes: run it in a fresh process and see how far that grows.

    python -m compressors.resident FOLDER < draft.json

The figure is what a gateway pays for one more variant: growth from "this engine runs already" to
"loaded, and a batch of every size up to 32 done", as the gateway warms it up, because an engine
keeps something for each size it has seen. What it needed on the way is given back before reading.
An engine's first program costs OpenVINO some 45 MB once, whatever it computes; so the variant is
loaded once to warm the engine, kept, and measured at the second load. Imports that engine alone,
and torch only if that is it. Prints bytes.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil

from compressors.draft import draft_card
from compressors.errors import BuildError
from gateway import engines, memory
from router.card import TensorSpec, VariantCard

_LARGEST_BATCH = 32
_TIMEOUT_S = 900.0  # an encoder of 22 M parameters needs some 20 s on an idle core


def measure(folder: Path, draft: VariantCard, shapes: Mapping[str, Sequence[int]]) -> int:
    """Growth of resident memory, in bytes, when a fresh process loads and first runs the variant.
    `shapes` are those of one row, for inputs with a free size besides the batch.

    Raises:
        BuildError: that process failed; the message is the last thing it said.
    """
    request = {
        "engine": draft.engine.name,
        "format": draft.engine.format,
        "constructor": draft.engine.constructor,
        "constructor_digest": draft.engine.constructor_digest,
        "precision": draft.precision,
        "shapes": dict(shapes),
        "inputs": [spec.model_dump(mode="json") for spec in draft.inputs],
        "outputs": [spec.model_dump(mode="json") for spec in draft.outputs],
    }
    done = subprocess.run(
        [sys.executable, "-m", "compressors.resident", str(folder)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BuildError(f"the variant does not run in a process of its own: {said[-1]}")
    return int(done.stdout)


def _main() -> None:
    folder, request = Path(sys.argv[1]), json.load(sys.stdin)
    specs = {
        kind: tuple(TensorSpec.model_validate_json(json.dumps(spec)) for spec in request[kind])
        for kind in ("inputs", "outputs")
    }
    card = draft_card(
        request["engine"],
        request["format"],
        request["precision"],
        specs["inputs"],
        specs["outputs"],
        request["constructor"],
        request["constructor_digest"],
    )
    engine = engines.get(request["engine"])
    process = psutil.Process()
    kept, growth = [], 0
    for _ in ("warms the engine", "counts"):
        gc.collect()
        memory.trim()
        before = process.memory_info().rss
        # Written by the build that asks: it is trusted by that.
        program = engine.load(folder, card, threads=1, trusted=True)
        for batch in range(1, _LARGEST_BATCH + 1):
            program.infer(_zeros(card, request["shapes"], batch))
        kept.append(program)
        memory.trim()
        growth = process.memory_info().rss - before
    # A tiny network can fit into memory that the process already held: then it is one page.
    print(max(4096, growth))


def _zeros(
    card: VariantCard, shapes: Mapping[str, Sequence[int]], batch: int
) -> dict[str, engines.Tensor]:
    return {
        spec.name: np.zeros(
            (batch, *shapes.get(spec.name, spec.shape[1:])),
            engines.NUMPY_TYPES[spec.datatype],
        )
        for spec in card.inputs
    }


if __name__ == "__main__":
    _main()
