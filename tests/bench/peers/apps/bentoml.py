"""The network in BentoML: `bentoml serve tests.bench.peers.apps.bentoml:Network`."""

import base64
import os
from pathlib import Path

import bentoml
import numpy as np

from tests.bench.peers import network
from tests.bench.peers.contract import MAX_BATCH, PIXELS

# Its limit is not how long to wait for company, which it learns by itself, but when to give up on
# a request: 2 ms there would refuse most of them.
_LIMITS = {"max_batch_size": MAX_BATCH, "max_latency_ms": 1000}


@bentoml.service(workers=1)
class Network:
    """JSON lists of numbers, or of base64 text."""

    def __init__(self) -> None:
        self._run = network.load(Path(os.environ["GEARSHIFT_BENCH_FOLDER"]))

    @bentoml.api(batchable=True, **_LIMITS)
    def predict(self, images: np.ndarray) -> np.ndarray:
        return self._run(images.astype(np.float32, copy=False))

    @bentoml.api(batchable=True, **_LIMITS)
    def predict_base64(self, images: list[str]) -> np.ndarray:
        sent = b"".join(map(base64.b64decode, images))
        return self._run(np.frombuffer(sent, np.float32).reshape(-1, PIXELS))
