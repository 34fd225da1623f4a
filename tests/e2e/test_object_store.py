"""`gearshift serve --models s3://…` against a real S3 server: it comes, changes, goes away."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import Server, until
from tests.gateway.store import servers
from tests.stores import write_three, write_variant

URL = "s3://models/here"
SOON_S = 0.2


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with servers.s3() as (client, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield client


def _serving(tmp_path: Path, **more: Any) -> Server:
    """A server of the URL, as `Server` starts one of a folder."""
    own = {"store_cache": tmp_path / "copies", "state": tmp_path / "state"}
    soon = {"store_seconds": SOON_S, "watch_seconds": SOON_S / 2}
    return Server(URL, **own, **soon, **more)  # type: ignore[arg-type]


def _variants(server: Server) -> set[str]:
    index = server.client.post("/v2/repository/index", json={}).json()
    return {one["version"] for one in index if one["state"] == "READY"}


def _upload(client: Any, folder: Path) -> None:
    servers.upload(client, folder, prefix="here/")


def _delete(client: Any, variant: str) -> None:
    prefix = f"here/echo/{variant}/"
    for one in client.list_objects_v2(Bucket="models", Prefix=prefix)["Contents"]:
        client.delete_object(Bucket="models", Key=one["Key"])


def test_variants_come_change_and_go_under_traffic(tmp_path: Path, s3: Any) -> None:
    write_three(tmp_path / "store")
    _upload(s3, tmp_path / "store")
    with _serving(tmp_path, workers=2, admin_port=0) as server:
        statuses: set[int] = set()
        ended = threading.Event()

        def ask() -> None:
            while not ended.is_set():
                statuses.add(server.infer().status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            write_variant(tmp_path / "new", "echo", "tiny", accuracy=0.8)
            _upload(s3, tmp_path / "new")
            until(lambda: "tiny" in _variants(server), "a variant came")
            write_variant(tmp_path / "newer", "echo", "tiny", accuracy=0.85)
            _upload(s3, tmp_path / "newer")
            until(lambda: _accuracy(server, "tiny") == 0.85, "it was replaced")
            _delete(s3, "tiny")
            until(lambda: "tiny" not in _variants(server), "it went")
        finally:
            ended.set()
            asking.join()
        assert statuses == {200}
        state = httpx.get(server.admin_url + "/admin/state").json()
        assert state["store"]["models"] == URL and state["store"]["unreadable"] == ""
        put = httpx.put(server.admin_url + "/admin/models/echo/variants/tiny", content=b"x")
        assert put.status_code == 422 or put.status_code == 400, put.text
        assert URL in put.text and "folder" in put.text


def _accuracy(server: Server, variant: str) -> float:
    answer = server.infer(headers={"Gearshift-Variant": variant})
    return float(answer.headers.get("gearshift-accuracy", 0))


def test_a_store_that_is_away_is_served_from_its_copy(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_three(store)
    folder = tmp_path / "served"
    with servers.web(tmp_path) as url:
        store.rename(folder)
        own = {"store_cache": tmp_path / "copies", "state": tmp_path / "state"}
        soon = {"store_seconds": SOON_S, "watch_seconds": SOON_S / 2}
        with Server(f"{url}/served", admin_port=0, **own, **soon) as server:  # type: ignore[arg-type]
            until(lambda: server.metric("gearshift_store_readable") == 1, "it is told to be back")
            folder.rename(store)
            until(lambda: server.metric("gearshift_store_readable") == 0, "it says so")
            assert server.infer().status_code == 200
            assert server.client.get("/readyz").status_code == 200
            state = httpx.get(server.admin_url + "/admin/state").json()
            assert "cannot be read" in state["store"]["unreadable"]
            assert "what is loaded serves on" in server.log()
            store.rename(folder)
            until(lambda: server.metric("gearshift_store_readable") == 1, "it came back")
            folder.rename(store)
        # A start while it is away serves what was fetched before.
        with Server(f"{url}/served", **own, **soon) as server:  # type: ignore[arg-type]
            assert server.infer().status_code == 200
            assert "what was fetched before is served" in server.log()
            until(lambda: server.metric("gearshift_store_readable") == 0, "it says so")
    shutil.rmtree(tmp_path / "copies")
    ended = _gearshift("serve", "--models", f"{url}/served", "--store-cache", tmp_path / "copies")
    assert ended.returncode == 1
    assert "cannot be read" in ended.stderr and "Traceback" not in ended.stderr


def test_the_commands_take_a_url_and_no_secret_is_said(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEARSHIFT_STORE_CACHE", str(tmp_path / "copies"))
    write_three(tmp_path / "store")
    _upload(s3, tmp_path / "store")
    said = []

    def run(*arguments: object, code: int = 0) -> str:
        ended = _gearshift(*arguments)
        said.append(ended.stdout + ended.stderr)
        assert ended.returncode == code, ended.stderr
        return ended.stdout

    assert "3 variants in " in run("pull", URL)
    assert "int8" in run("list", URL)
    assert '"variant": "int8"' in run("show", f"{URL}/echo/int8", "--json")
    assert "small" in run("decide", URL, "echo", "--optimize", "latency")
    assert "ok      echo/fp32" in run("verify", URL)
    s3.put_object(Bucket="models", Key="here/echo/int8/echo.json", Body=b"[]")
    assert "BROKEN  echo/int8" in run("verify", URL, code=1)
    # The copy holds what was whole; what came since is told and not taken.
    run("pull", URL, code=0)
    with _serving(tmp_path, log_level="debug") as server:
        _delete(s3, "small")
        until(lambda: "small" not in _variants(server), "it went")
        said += [
            server.log(),
            server.client.get("/metrics").text,
            server.client.get("/console/state").text,
        ]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-" + servers.SECRET)
    run("list", "s3://no-such-bucket/models", code=1)
    everything = "\n".join(said)
    assert servers.SECRET not in everything and servers.KEY not in everything
    assert "Traceback" not in everything and "Signature" not in everything


def _gearshift(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_server_that_is_away_from_the_start_and_its_library_connects_at_once(
    tmp_path: Path,
) -> None:
    """FTP's: what was copied is served, and followed again when it is back."""
    write_three(tmp_path / "store")
    own = {"store_cache": tmp_path / "copies", "state": tmp_path / "state"}
    soon = {"store_seconds": SOON_S, "watch_seconds": SOON_S / 2}
    with servers.ftp(tmp_path) as url, Server(f"{url}/store", **own, **soon) as server:  # type: ignore[arg-type]
        assert _variants(server) == {"fp32", "int8", "small"}
    with Server(f"{url}/store", **own, **soon) as server:  # type: ignore[arg-type]
        assert server.infer().status_code == 200
        until(lambda: server.metric("gearshift_store_readable") == 0, "it is told to be away")
        assert "what was fetched before is served" in server.log()
        shutil.rmtree(tmp_path / "store" / "echo" / "small")
        with servers.ftp(tmp_path, int(url.rpartition(":")[2])):
            until(lambda: _variants(server) == {"fp32", "int8"}, "it is followed again")
            until(lambda: server.metric("gearshift_store_readable") == 1, "it is told to be back")
        until(lambda: server.metric("gearshift_store_readable") == 0, "it is told to be away")
        with servers.ftp(tmp_path, int(url.rpartition(":")[2])):
            until(lambda: server.metric("gearshift_store_readable") == 1, "it is back once more")
        assert server.infer().status_code == 200
