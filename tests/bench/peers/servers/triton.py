"""Triton inference server, as nvidia-pytriton ships it: a Python function behind Triton's HTTP.

That distribution has Triton's Python backend alone, so the network runs in a process beside the
server, which batches; tensors go through shared memory.
"""

from __future__ import annotations

from tests.bench.peers import network
from tests.bench.peers.contract import (
    RUNTIME,
    Form,
    Peer,
    module,
    v2_binary,
    v2_json,
    v2_logits,
)

_VERSION = "0.7.0"
_PATH = "/v2/models/network/infer"

PEER = Peer(
    name="Triton",
    version=f"nvidia-pytriton {_VERSION}",
    requirements=(f"nvidia-pytriton=={_VERSION}", RUNTIME),
    command=lambda binaries, work, port: (
        *(str(binaries / "python"), "-m", module("triton")),
        *(str(work), str(port)),
    ),
    ready="/v2/models/network/ready",
    forms={
        "json": Form(v2_json(_PATH, network.INPUT), v2_logits, "v2 JSON"),
        "binary": Form(
            v2_binary(_PATH, network.INPUT, network.OUTPUT), v2_logits, "v2 binary tensors"
        ),
    },
    setup="Python backend, one instance",
)
