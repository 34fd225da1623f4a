"""An app behind the gateway's HTTP protocol, on a real port, in a thread of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from gateway.http.limits import limited

LIMIT = 4096


@contextmanager
def served(app: Any, read_timeout_seconds: float, **limits: Any) -> Iterator[int]:
    """The port where `app` is served, with heads of at most `LIMIT` bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=limited(LIMIT, read_timeout_seconds, **limits),
        loop="uvloop",
        lifespan="off",
        ws="none",
        log_level="error",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
