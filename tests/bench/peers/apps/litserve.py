"""The network in LitServe: `python -m tests.bench.peers.apps.litserve FOLDER PORT`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body, Response

from tests.bench.peers import network
from tests.bench.peers.contract import MAX_BATCH, WAIT_S


class Network(litserve.LitAPI):
    """JSON: the library reads it where `request` has no annotation, so there are none."""

    def setup(self, device):  # noqa: ARG002
        self.run = network.load(Path(sys.argv[1]))

    def decode_request(self, request):
        return np.array(request["image"], np.float32)

    def predict(self, x: Any) -> Any:
        return self.run(x)

    def encode_response(self, output):
        return Response(json.dumps(output.tolist()), media_type="application/json")


class Raw(Network):
    """The body is the tensor."""

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ):
        return np.frombuffer(request, np.float32)


if __name__ == "__main__":
    limits = {"max_batch_size": MAX_BATCH, "batch_timeout": WAIT_S}
    server = litserve.LitServer(
        [Network(api_path="/json", **limits), Raw(api_path="/raw", **limits)],
        accelerator="cpu",
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
