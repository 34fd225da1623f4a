"""LitServe: one API process and one inference process, which batches."""

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

_VERSION = "0.2.19"

PEER = Peer(
    name="LitServe",
    version=_VERSION,
    requirements=(f"litserve=={_VERSION}", RUNTIME),
    command=lambda binaries, work, port: (
        *(str(binaries / "python"), "-m", module("litserve")),
        *(str(work), str(port)),
    ),
    ready="/health",
    forms={
        "json": Form(plain_json("/json", "image"), json_logits, "plain JSON"),
        "binary": Form(raw("/raw"), json_logits, "raw bytes"),
    },
    setup="one worker, `fast_queue`",
)
