"""The service for systemd: its file is sound, and the server tells its manager how far it is."""

from __future__ import annotations

import itertools
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.processes.workers import _GRACE_S
from gateway.settings import PREFIX, Settings
from tests.e2e.harness import until
from tests.needs import program
from tests.stores import write_variant

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "gearshift.service"
_INSTALLED = "/opt/gearshift/bin/"


def _unit() -> dict[str, list[str]]:
    """Every key's values, in order; comments and sections left out."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text("utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def _environment() -> dict[str, str]:
    return dict(line.split("=", 1) for line in _unit()["Environment"])


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)(s|min)", text)
    assert found, text
    return int(found[1]) * {"s": 1, "min": 60}[found[2]]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The unit with this environment's programs in the place of the installed ones."""
    copy = tmp_path / UNIT.name
    own = f"{Path(sys.executable).parent}/"
    copy.write_text(UNIT.read_text("utf-8").replace(_INSTALLED, own), encoding="utf-8")
    return copy


def test_systemd_finds_nothing_wrong(here: Path) -> None:
    command = [program("systemd-analyze", "systemd"), "verify", "--man=no", str(here)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_systemd_rates_its_exposure_as_low(here: Path) -> None:
    # Of 100; what remains is the network, which a server is for, and making code executable.
    command = [program("systemd-analyze", "systemd"), "security", "--offline=yes"]
    ran = subprocess.run([*command, "--threshold=20", str(here)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_it_can_change_nothing_but_its_own() -> None:
    unit = _unit()
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == unit["ProtectHome"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]
    assert "ReadWritePaths" not in unit


def test_its_settings_exist_and_its_folders_are_the_ones_that_systemd_makes() -> None:
    given = {name.removeprefix(PREFIX).lower(): value for name, value in _environment().items()}
    assert set(given) - {"config"} <= set(Settings.model_fields)
    (state,), (cache,) = _unit()["StateDirectory"], _unit()["CacheDirectory"]
    assert given["state"] == f"/var/lib/{state}"
    assert given["store_cache"] == f"/var/cache/{cache}"
    (checked,) = _unit()["ExecStartPre"]
    assert checked.split()[1:] == ["verify", given["models"]]


def test_keys_are_made_as_its_user_in_its_folder() -> None:
    said = [line.removeprefix("#").strip() for line in UNIT.read_text("utf-8").splitlines()]
    page = (UNIT.parents[2] / "docs" / "how-to" / "deploy.md").read_text("utf-8").splitlines()
    for lines in (said, page):
        (begin,) = [at for at, line in enumerate(lines) if line.startswith("systemd-run ")]
        end = next(at for at in range(begin, len(lines)) if not lines[at].endswith("\\"))
        words = shlex.split(" ".join(line.rstrip("\\") for line in lines[begin : end + 1]))
        pairs = list(itertools.pairwise(words))
        properties = dict(word.split("=", 1) for flag, word in pairs if flag == "-p")
        unit = {name: values[0] for name, values in _unit().items()}
        # A dynamic user is named as its unit is, where the unit does not say.
        assert properties.pop("User") == UNIT.stem
        assert properties.items() <= unit.items()
        assert {"DynamicUser", "StateDirectory", "StateDirectoryMode"} <= set(properties)
        given = dict(word.split("=", 1) for flag, word in pairs if flag == "-E")
        assert given.items() <= _environment().items()
        assert {f"{PREFIX}STATE", f"{PREFIX}CONFIG"} <= set(given)
        command = words.index(f"{_INSTALLED}gearshift")
        assert words[command + 1 : command + 3] == ["keys", "create"]


def test_it_may_drain_before_it_is_killed() -> None:
    (patience,) = _unit()["TimeoutStopSec"]
    assert _seconds(patience) >= Settings().drain_seconds + _GRACE_S


@contextmanager
def _started(tmp_path: Path, address: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """What ExecStart says, with the unit's environment pointed at folders of a test."""
    (command,) = _unit()["ExecStart"]
    words = shlex.split(command)
    assert words[0] == f"{_INSTALLED}gearshift"
    environment = _environment()
    del environment[f"{PREFIX}CONFIG"]
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32")
    environment |= {
        f"{PREFIX}MODELS": str(models),
        f"{PREFIX}STATE": str(tmp_path / "state"),
        f"{PREFIX}STORE_CACHE": str(tmp_path / "cache"),
        f"{PREFIX}PORT": "0",
        f"{PREFIX}GRPC_PORT": "off",
        f"{PREFIX}ADMIN_PORT": "off",
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", *words[1:]],
        env=environment | {"NOTIFY_SOCKET": address, "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(("kind", "workers"), [("path", "1"), ("abstract", "1"), ("path", "2")])
def test_the_manager_is_told_of_the_start_and_of_the_end(
    tmp_path: Path, kind: str, workers: str
) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@gearshift-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        manager.settimeout(60)
        with _started(tmp_path, name, GEARSHIFT_WORKERS=workers) as process:
            said = manager.recv(4096).decode().splitlines()
            assert said[0] == "READY=1"
            url = re.fullmatch(r"STATUS=ready: (http://\S+/)", said[1])
            assert url, said
            assert httpx.get(f"{url[1]}readyz").status_code == 200  # it was, when it said so
            (reload,) = _unit()["ExecReload"]
            subprocess.run(shlex.split(reload.replace("$MAINPID", str(process.pid))), check=True)
            assert httpx.get(f"{url[1]}readyz").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert manager.recv(4096).decode().startswith("STOPPING=1\n")
            assert process.wait(60) == 0


def test_a_manager_that_has_gone_keeps_nobody_from_serving(tmp_path: Path) -> None:
    with _started(tmp_path, str(tmp_path / "nobody")) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        until(lambda: next(lines).startswith(b"ready: "), "it is ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
