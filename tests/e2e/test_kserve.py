"""KServe's REST and gRPC clients, unmodified, against the server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import PATIENCE_S, Server
from tests.stores import write_three


def test_kserve_clients(tmp_path: Path) -> None:
    write_three(tmp_path, mirror=True)
    with Server(tmp_path, max_batch=4, grpc_port=0) as server:
        called = subprocess.run(
            [
                *(sys.executable, "-m", "tests.e2e.kserve_calls"),
                *(f"http://{server.address}", server.grpc_address),
            ],
            capture_output=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        if called.returncode:
            pytest.fail(called.stderr.decode())
        got = json.loads(called.stdout.decode().splitlines()[-1])
    first_values = [[0.0] * 3, [4.0] * 3]
    for protocol in ("rest", "grpc"):
        assert got[protocol]["ready"] == [True] * 3
        for how in ("json", "binary"):
            assert got[protocol][how] == {"id": "seven", "output": first_values}
        assert got[protocol]["fastest"] == "small"
    assert got["rest"]["absent"] == 404
    assert got["grpc"]["variant"] == "fp32"
    assert got["grpc"]["absent"] == "NOT_FOUND"
    assert got["grpc"]["nothing fits"] == "FAILED_PRECONDITION"
