"""Who gets what of the console on a real server: files, keys, operators, other sites, a setting."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from gateway.app import create_app
from gateway.cli import app
from gateway.settings import Settings
from tests.e2e.console_calls import DATA, echo, variants
from tests.e2e.harness import PATIENCE_S, Server
from tests.e2e.problems import assert_problem
from tests.stores import write_three, write_variant


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    with Server(models) as server:
        yield server


def test_the_page_and_its_files_lead_nowhere_else(server: Server) -> None:
    page = server.client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    for path in ("/console/charts.js", "/console/charts.css", "/console/main.js"):
        file = server.client.get(path, headers={"accept-encoding": "identity"})
        assert file.status_code == 200 and file.headers["x-content-type-options"] == "nosniff"
        assert "javascript" in file.headers["content-type"] or path.endswith("css")
        asked = {"if-none-match": file.headers["etag"]}
        again = server.client.get(path, headers=asked)
        assert again.status_code == 304 and not again.content
        zipped = {"accept-encoding": "gzip"}
        with server.client.stream("GET", path, headers=zipped) as answer:
            raw = b"".join(answer.iter_raw())
        if "content-encoding" in answer.headers:
            raw = gzip.decompress(raw)
        assert raw == file.content


@pytest.mark.parametrize("path", ["/", "/console/main.js"])
def test_files_come_in_the_coding_that_was_asked_for(server: Server, path: str) -> None:
    for accepts, coding in (
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("*, gzip;q=0", None),
        ("x-notgzip", None),
        ("", None),
    ):
        answer = server.client.get(path, headers={"accept-encoding": accepts})
        assert answer.headers.get("content-encoding") == coding, accepts


@pytest.mark.parametrize("path", ["/", "/console/main.js"])
def test_a_head_is_what_the_whole_would_begin_with(server: Server, path: str) -> None:
    whole, head = server.client.get(path), server.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    same = dict(whole.headers), dict(head.headers)
    for headers in same:
        for own in ("date", "x-request-id"):
            headers.pop(own, None)
    assert same[0] == same[1]
    unchanged = server.client.head(path, headers={"if-none-match": head.headers["etag"]})
    assert unchanged.status_code == 304


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2fstate.py", "../files.py", "x.js", "%00.js"])
def test_no_file_but_the_pages_own(server: Server, name: str) -> None:
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as raw:
        head = (
            f"GET /console/{name} HTTP/1.1\r\nHost: {server.address}\r\nConnection: close\r\n\r\n"
        )
        raw.sendall(head.encode())
        assert raw.makefile("rb").readline().split()[1] in (b"404", b"400")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    made = CliRunner().invoke(
        app, ["keys", "create", "root", "--models", str(models), "--scope", "admin", "--json"]
    )
    assert made.exit_code == 0, made.output
    with Server(models) as server:
        server.root = json.loads(made.stdout)["key"]  # type: ignore[attr-defined]
        yield server


@pytest.fixture(scope="module")
def keys(keyed: Server) -> dict[str, str]:
    """A key for each scope."""
    found = {"admin": keyed.root}  # type: ignore[attr-defined]
    for scope in ("infer", "read"):
        body = {"name": scope, "scopes": [scope], "tenant": "gold"}
        url = f"{keyed.admin_url}/admin/keys"
        made = httpx.post(url, json=body, headers={"Authorization": f"Bearer {found['admin']}"})
        found[scope] = made.json()["key"]
    return found


def ask(keyed: Server, path: str, key: str, method: str = "GET") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return keyed.client.request(method, path, headers=headers)


def test_the_page_needs_no_key_and_its_data_do(keyed: Server, keys: dict[str, str]) -> None:
    for path in ("/", "/console/charts.js", "/console/main.js", "/console/icon.svg"):
        assert ask(keyed, path, "").status_code == 200, path
        assert ask(keyed, path, "", "HEAD").status_code == 200, path
    for path in DATA:
        assert_problem(ask(keyed, path, ""), 401)
        assert_problem(ask(keyed, path, keys["infer"]), 403)
        assert ask(keyed, path, keys["read"]).status_code == 200


def test_who_may_administrate(keyed: Server, keys: dict[str, str]) -> None:
    path = "/console/admin/models/echo/variants/int8/disable"
    assert_problem(ask(keyed, path, "", "POST"), 401)
    assert_problem(ask(keyed, path, keys["read"], "POST"), 403)
    told = {name: ask(keyed, "/console/state", keys[name]).json() for name in ("read", "admin")}
    assert [told[name]["admin"] for name in ("read", "admin")] == [False, True]
    assert told["read"]["needs_key"]
    assert ask(keyed, path, keys["admin"], "POST").status_code == 200


def test_a_request_is_told_with_its_tenant(keyed: Server, keys: dict[str, str]) -> None:
    assert keyed.infer(headers={"Authorization": f"Bearer {keys['infer']}"}).is_success
    told = ask(keyed, "/console/decisions?limit=1", keys["read"]).json()
    assert told["decisions"][0]["tenant"] == "gold"


def operate(server: Server, method: str, path: str, **body: Any) -> httpx.Response:
    content = json.dumps(body) if body else None
    return server.client.request(method, f"/console/admin{path}", content=content)


def test_what_an_operator_changes_is_shown(server: Server) -> None:
    path = "/models/echo/variants/int8"
    assert operate(server, "POST", path + "/canary", share=0.25).is_success
    assert variants(server)["int8"]["canary_weight"] == 0.25
    assert operate(server, "POST", path + "/shadow", share=0.5).is_success
    shadow = variants(server)["int8"]
    assert (shadow["state"], shadow["shadow_share"]) == ("shadow", 0.5)
    assert operate(server, "POST", path + "/disable").is_success
    assert variants(server)["int8"]["state"] == "disabled"
    assert operate(server, "POST", path + "/enable").is_success
    assert variants(server)["int8"]["state"] == "ready"
    assert operate(server, "PUT", "/models/echo/pin", variant="small").is_success
    assert echo(server)["pinned"] == "small"
    assert operate(server, "DELETE", "/models/echo/pin").is_success
    assert operate(server, "PUT", "/models/echo/aliases/best", variant="fp32").is_success
    assert echo(server)["aliases"] == {"best": "fp32"}
    assert operate(server, "DELETE", "/models/echo/aliases/best").is_success
    assert_problem(operate(server, "POST", path + "/canary", share=2), 400)
    assert_problem(operate(server, "POST", "/models/echo/variants/none/enable"), 404)


def test_other_sites_change_nothing(server: Server) -> None:
    path = "/console/admin/models/echo/variants/int8/disable"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert_problem(server.client.post(path, headers=headers), 403)
    assert variants(server)["int8"]["state"] == "ready"


@pytest.mark.parametrize("kept", ["read-only", "off"])
def test_the_setting_leaves_out_what_it_says(
    tmp_path: Path, kept: Literal["read-only", "off"]
) -> None:
    write_variant(tmp_path, "echo", "fp32")
    chosen = Settings(
        models=tmp_path, lanes=1, drain_seconds=0, admin_port="off", grpc_port="off", console=kept
    )
    with TestClient(create_app(chosen), base_url="http://127.0.0.1:8080") as client:
        path = "/console/admin/models/echo/variants/fp32/disable"
        assert_problem(client.post(path), 404)
        expected = 200 if kept == "read-only" else 404
        paths = ("/", "/console/main.js", "/console/charts.js", *DATA)
        assert [client.get(path).status_code for path in paths] == [expected] * len(paths)
        if kept == "read-only":
            assert not client.get("/console/state").json()["admin"]
