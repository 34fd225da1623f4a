"""The admin port of a real server, and names that would lead out of the store, on every route."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import PATIENCE_S, Server, until
from tests.e2e.problems import assert_problem
from tests.stores import write_variant

NAMES = (
    "..",
    "%2e%2e",
    "..%2f..%2foutside",
    "%2fetc%2fpasswd",
    "..%5c..%5coutside",
    ".gearshift",
    "echo%2f..%2f..%2foutside",
    "a%00b",
    "%ff%fe",
    "n" * 300,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    write_variant(folder / "store", "echo", "fp32")
    # A store that nobody serves, with a file that must not be read, moved or deleted.
    write_variant(folder / "outside", "fp32", "fp32")
    (folder / "outside" / "frontier.png").write_text("root:x:0:0")
    with Server(folder / "store", database="sqlite:///" + str(folder / "own.db")) as server:
        yield server


def test_state_says_everything_and_no_secret(server: Server) -> None:
    url = f"{server.admin_url}/admin"
    made = httpx.post(f"{url}/keys", json={"name": "operator", "scopes": ["admin"]}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    state = httpx.get(f"{url}/state", headers=headers)
    assert state.status_code == 200
    found: dict[str, Any] = state.json()
    assert found["ready"]
    assert found["worker"] is None
    assert found["models"]["echo"]["variants"]["fp32"]["state"] == "ready"
    assert found["settings"]["lanes"] == 1
    (key,) = found["keys"]
    assert (key["name"], key["requests_today"]) == ("operator", 1)
    assert made["key"].split("_", 2)[2] not in state.text
    assert "digest" not in key


def _asked(base: str, headers: dict[str, str]) -> Iterator[tuple[str, int, str]]:
    """Every route of a port by each name that would lead out of the store, as it is written."""
    described = "/admin/openapi.json" if base.startswith("admin") else "/openapi.json"
    address = base.removeprefix("admin ")
    document = httpx.get(f"http://{address}{described}", headers=headers).json()
    connection = HTTPConnection(address, timeout=PATIENCE_S)
    content = _archive("card.json")
    others = {"{model}": "echo", "{version}": "fp32", "{variant}": "fp32", "{alias}": "stable"}
    for path, methods in document["paths"].items():
        for parameter in re.findall(r"\{\w+\}", path):
            for method, name in itertools.product(methods, NAMES):
                filled = path.replace(parameter, name)
                for other, value in others.items():
                    filled = filled.replace(other, value)
                connection.request(method.upper(), filled, body=content, headers=headers)
                answer = connection.getresponse()
                yield f"{method} {filled}", answer.status, answer.read().decode()


def _archive(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    return file.getvalue()


def _tree(folder: Path) -> dict[str, str]:
    """Every file by its digest, but what the server remembers for itself."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("own.db") and "rollouts" not in path.parts
    }


def test_no_name_leads_out_of_the_store(server: Server, folder: Path) -> None:
    url = f"{server.admin_url}/admin/keys"
    made = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "keys", "create", "prober", "--scope", "admin",
         "--database", "sqlite:///" + str(folder / "own.db")],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    until(lambda: httpx.get(url, headers=headers).status_code == 200, "the key is known")
    before, count = _tree(folder), 0
    admin = server.admin_url.removeprefix("http://")
    for base in (server.address, f"admin {admin}"):
        for asked, status, text in _asked(base, headers):
            count += 1
            if status == 200:  # there is none of that name, which is what was asked for
                assert asked.startswith("delete /admin/models/echo/aliases/"), (asked, text)
                continue
            assert status in (400, 404), (asked, text)
            assert json.loads(text)["status"] == status
            assert "root:" not in text
    assert count >= 100
    assert _tree(folder) == before
    assert "Traceback" not in server.log()
    assert server.infer(headers=headers).status_code == 200


def test_no_archive_writes_outside_its_folder(tmp_path: Path) -> None:
    write_variant(tmp_path / "store", "echo", "fp32")
    with Server(tmp_path / "store") as server:
        before = _tree(tmp_path)
        url = f"{server.admin_url}/admin/models/echo/variants/int8"
        for name in ("../../evil", str(tmp_path / "evil"), "a/b", "..", ".hidden"):
            answer = httpx.put(url, content=_archive(name), timeout=PATIENCE_S)
            assert_problem(answer, 400, code="invalid-request")
            assert _tree(tmp_path) == before, name


def test_limits_of_connections_are_those_of_the_settings(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    limits = {"max_connections": 3, "idle_timeout_seconds": 1, "read_timeout_seconds": 1}
    with Server(tmp_path, **limits) as server:
        server.client.close()
        host, port = server.address.split(":")

        def connect() -> socket.socket:
            return socket.create_connection((host, int(port)), timeout=PATIENCE_S)

        def answered(connection: socket.socket) -> bytes:
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

        slow, silent, kept = connect(), connect(), connect()
        slow.sendall(b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\nContent-Le")
        kept.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        alive = HTTPResponse(kept)
        alive.begin()
        assert alive.read() == b'{"live":true}'
        with connect() as too_many:
            refused = answered(too_many)
            assert refused.startswith(b"HTTP/1.1 503")
            assert json.loads(refused.partition(b"\r\n\r\n")[2])["detail"].startswith("3 conn")
        assert answered(slow).startswith(b"HTTP/1.1 408")
        assert answered(silent) == b""
        assert answered(kept) == b""
        for one in (slow, silent, kept):
            one.close()
        with httpx.Client(base_url=f"http://{server.address}") as client:
            assert client.get("/v2/health/live").status_code == 200


def test_a_port_in_use_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [
            sys.executable, "-m", "gateway.cli", "serve", "--models", str(tmp_path), "--port", "0",
            "--grpc-port", "off", "--admin-port", str(port),
        ]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr
