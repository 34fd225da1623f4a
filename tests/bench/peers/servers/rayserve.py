"""Ray Serve: one replica behind the HTTP proxy, `@serve.batch`."""

from __future__ import annotations

from tests.bench.peers.contract import (
    RUNTIME,
    Form,
    Peer,
    json_logits,
    module,
    plain_json,
    raw,
)

_VERSION = "2.60.0"

PEER = Peer(
    name="Ray Serve",
    version=_VERSION,
    requirements=(f"ray[serve]=={_VERSION}", RUNTIME),
    command=lambda binaries, work, port: (
        *(str(binaries / "python"), "-m", module("rayserve")),
        *(str(work), str(port)),
    ),
    ready="/-/healthz",
    forms={
        "json": Form(plain_json("/", "image"), json_logits, "plain JSON"),
        "binary": Form(raw("/"), json_logits, "raw bytes"),
    },
    setup="one replica, throughput options on",
    environment={
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_DEDUP_LOGS": "0",
    },
)
