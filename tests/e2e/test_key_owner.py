"""Keys that another user made than the one that serves: never a server that everybody may use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.trust import keys
from gateway.trust.ledger import FILE, Ledger
from tests.e2e.harness import PATIENCE_S, infer_body, until
from tests.stores import write_variant

USER = 65532

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root starts a server as another user",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        write_variant(Path(name) / "models", "echo", "fp32")
        yield Path(name)


def _serve(folder: Path, state: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start it as `USER`, who may read whatever holds the interpreter, but write nothing there."""
    own = {
        name: f"{sign}dac_read_search"
        for name, sign in (("inh-caps", "+"), ("ambient-caps", "+"), ("bounding-set", "+"))
    }
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    become += [f"--{name}=-all,{capability}" for name, capability in own.items()]
    kept = {name: value for name, value in os.environ.items() if name[:9] != "GEARSHIFT"}
    settings = {"MODELS": folder / "models", "STATE": state, "PORT": 0, "GRPC_PORT": "off"}
    settings |= {"ADMIN_PORT": "off"}
    with log.open("wb") as written:
        return subprocess.Popen(
            [*become, sys.executable, "-m", "gateway.cli", "serve"],
            env=kept | {f"GEARSHIFT_{name}": str(value) for name, value in settings.items()},
            stdout=written,
            stderr=subprocess.STDOUT,
        )


def test_a_ledger_of_another_user_ends_the_start(folder: Path) -> None:
    state = folder / "state"
    Ledger(None, state, "").insert(keys.create(keys.wanted({"name": "acme"}), "now")[0])
    os.chown(state, USER, USER)  # the folder is the server's, the file is root's
    log = folder / "log"
    process = _serve(folder, state, log)
    try:
        assert process.wait(PATIENCE_S) == 1
    finally:
        process.kill()
        process.wait()
    said = log.read_text()
    assert "Traceback" not in said
    assert f"expected keys that user {USER} may read and write" in said
    assert f"got {state / FILE} of user 0" in said


def test_a_key_that_root_makes_closes_a_running_server(folder: Path) -> None:
    state, log = folder / "state", folder / "log"
    state.mkdir(mode=0o700)
    os.chown(state, USER, USER)
    process = _serve(folder, state, log)
    try:
        found = until(lambda: re.search(r"^ready: (http://\S+)", log.read_text(), re.M), "ready")
        url = f"{found[1]}v2/models/echo/infer"  # type: ignore[index]

        def status(**headers: str) -> int:
            return httpx.post(url, json=infer_body(), headers=headers).status_code

        assert status() == 200
        key, text = keys.create(keys.wanted({"name": "acme"}), "now")
        Ledger(None, state, "").insert(key)
        until(lambda: status() == 401, "it is closed")
        assert status(Authorization=f"Bearer {text}") == 200
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
