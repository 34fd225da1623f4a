"""The network in MLServer, named in its `model-settings.json`."""

from pathlib import Path
from typing import Any

import mlserver
import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from tests.bench.peers import network
from tests.bench.peers.contract import PIXELS


class Network(mlserver.MLModel):
    """Tensors as v2 JSON."""

    async def load(self) -> bool:
        self._run = network.load(Path(self.settings.parameters.uri))
        return True

    def rows(self, request: InferenceRequest) -> Any:
        return NumpyCodec.decode_input(request.inputs[0]).astype(np.float32, copy=False)

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        output = NumpyCodec.encode_output(network.OUTPUT, self._run(self.rows(payload)))
        return InferenceResponse(model_name=self.name, outputs=[output])


class Bytes(Network):
    """The tensor's bytes as base64 text."""

    def rows(self, request: InferenceRequest) -> Any:
        sent = Base64Codec.decode_input(request.inputs[0])
        return np.frombuffer(b"".join(sent), np.float32).reshape(-1, PIXELS)
