"""MLServer (Seldon): the network in the server's own process, adaptive batching.

Over HTTP it takes tensors as JSON alone; base64 text is its way to send bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench.peers import network
from tests.bench.peers.contract import (
    MAX_BATCH,
    RUNTIME,
    WAIT_S,
    Ask,
    Form,
    Peer,
    base64_text,
    module,
    v2_json,
    v2_logits,
)

_VERSION = "1.7.1"
_PATH = "/v2/models/network/infer"


def _base64(row: bytes) -> Ask:
    tensor = {
        "name": network.INPUT,
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64_text(row)],
        "parameters": {"content_type": "base64"},
    }
    body = json.dumps({"inputs": [tensor]}).encode()
    return Ask(_PATH.replace("network", "bytes"), body, {"Content-Type": "application/json"})


def _command(binaries: Path, work: Path, port: int) -> tuple[str, ...]:
    folder = work / f"mlserver-{port}"
    own = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": 0,
        "metrics_dir": str(folder / "metrics"),
        "environments_dir": str(folder / "environments"),
    }
    for name, served in (("network", "Network"), ("bytes", "Bytes")):
        model = {
            "name": name,
            "implementation": f"{module('mlserver')}.{served}",
            "max_batch_size": MAX_BATCH,
            "max_batch_time": WAIT_S,
            "parameters": {"uri": str(work)},
        }
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps(own))
    return str(binaries / "mlserver"), "start", str(folder)


PEER = Peer(
    name="MLServer",
    version=_VERSION,
    requirements=(f"mlserver=={_VERSION}", RUNTIME),
    command=_command,
    ready="/v2/health/ready",
    forms={
        "json": Form(v2_json(_PATH, network.INPUT), v2_logits, "v2 JSON"),
        "binary": Form(_base64, v2_logits, "base64 in v2 JSON"),
    },
    setup="`parallel_workers` 0, access log off",
)
