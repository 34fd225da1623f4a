"""BentoML: one worker process with adaptive batching.

Over HTTP it takes arrays as JSON alone, so base64 text is the way to send bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench.peers.contract import (
    RUNTIME,
    Ask,
    Form,
    Peer,
    base64_text,
    json_logits,
    module,
    numbers,
)

# 1.4.40 asks for a version of certifi that is not to be had.
_VERSION = "1.4.39"
_FOLDER = "GEARSHIFT_BENCH_FOLDER"


def _json(row: bytes) -> Ask:
    body = json.dumps({"images": [numbers(row)]}).encode()
    return Ask("/predict", body, {"Content-Type": "application/json"})


def _base64(row: bytes) -> Ask:
    body = json.dumps({"images": [base64_text(row)]}).encode()
    return Ask("/predict_base64", body, {"Content-Type": "application/json"})


PEER = Peer(
    name="BentoML",
    version=_VERSION,
    requirements=(f"bentoml=={_VERSION}", RUNTIME),
    command=lambda binaries, work, port: (
        *("/usr/bin/env", f"{_FOLDER}={work}", f"BENTOML_HOME={work / 'bentoml'}"),
        *(str(binaries / "bentoml"), "serve", f"{module('bentoml')}:Network"),
        *("--host", "127.0.0.1", "--port", str(port), "--working-dir", str(Path.cwd())),
    ),
    ready="/readyz",
    forms={
        "json": Form(_json, json_logits, "plain JSON"),
        "binary": Form(_base64, json_logits, "base64 in JSON"),
    },
    setup="one worker, access log off",
    environment={
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",
    },
)
