"""Connections of HTTP and gRPC share the files that the system lets the server open."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from gateway.processes import open_files
from tests.e2e.harness import PATIENCE_S, Server
from tests.stores import write_variant

FILES = 1300


def test_neither_http_nor_grpc_takes_the_other_s_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_variant(tmp_path / "models", "echo", "fp32")
    # A hard limit can be lowered alone, so not in this process.
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES}))\n"
    (tmp_path / "sitecustomize.py").write_text(limited)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        Server(tmp_path / "models", grpc_port=0) as server,
        contextlib.ExitStack() as open_,
    ):
        server.client.close()

        def answer(address: str, hello: bytes) -> bytes:
            host, _, port = address.rpartition(":")
            one = socket.create_connection((host, int(port)), PATIENCE_S)
            with contextlib.suppress(ConnectionError):
                one.sendall(hello)
                if said := one.recv(12):
                    open_.enter_context(one)
                    return said
            one.close()
            return b""

        http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
        grpc = [answer(server.grpc_address, http2) for _ in range(FILES - 512)]
        assert sum(map(bool, grpc)) == open_files.grpc_connections(FILES)
        most = open_files.connections(FILES, beside_grpc=True)
        http = [
            answer(server.address, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(most + 10)
        ]
        assert set(http[:most]) == {b"HTTP/1.1 200"}
        assert set(http[most:]) == {b"HTTP/1.1 503"}


def test_limits_that_grpc_cannot_hold_are_none_to_it(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    large = 3_000_000_000
    own = {"max_body_bytes": large, "max_header_bytes": large, "max_queue": large}
    with Server(
        tmp_path, grpc_port=0, max_connections=1 << 30, idle_timeout_seconds=1e9, **own
    ) as server:
        assert server.grpc_address
        assert server.infer().status_code == 200
