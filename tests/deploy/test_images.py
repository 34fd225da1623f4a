"""The images' Dockerfiles, and the program that carries out their steps without an engine."""

from __future__ import annotations

import fnmatch
import json
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.docker import dockerfile, slim
from deploy.docker.dockerfile import Stage
from gateway.settings import PREFIX, Settings
from tests.e2e.harness import Server
from tests.stores import write_variant

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)[^\\]*\\$((?:\n    --hash=\S+(?: \\)?)+)", re.M)


def _stages(name: str) -> tuple[Stage, Stage]:
    build, last = dockerfile.read(DOCKER / f"{name}.Dockerfile")
    return build, last


def _pins(name: str) -> dict[str, str]:
    """Package to version, of every line of a lock, each of which must have a hash."""
    text = (DOCKER / f"{name}.lock").read_text("utf-8")
    pins = {canonicalize_name(found[1]): found[2] for found in _PIN.finditer(text)}
    lines = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(pins) == len(lines) > 0
    return pins


def _locked_extras(name: str) -> set[str]:
    said = (DOCKER / f"{name}.lock").read_text("utf-8").splitlines()[1]
    return set(said.partition("extras: ")[2].split())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_linter_that_knows_dockerfiles_finds_nothing(file: Path) -> None:
    # From the package index, so it lies beside the interpreter.
    linter = Path(sys.executable).parent / "hadolint"
    ran = subprocess.run(
        [linter, "--failure-threshold", "warning", str(file)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_image_is_pinned_and_runs_as_a_number_that_is_not_root(file: Path) -> None:
    build, last = dockerfile.read(file)
    for stage in (build, last):
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", stage.base)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last.only("USER"))
    assert json.loads(last.only("ENTRYPOINT")) == ["gearshift"]
    for step in build.all("RUN"):
        for install in re.findall(r"pip[^&]* install [^&]*", step):
            assert "--no-deps" in install
            assert "--require-hashes" in install or "--no-index" in install or "torch==" in install


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_exists_and_is_let_through(file: Path) -> None:
    lines = Path(f"{file}.dockerignore").read_text("utf-8").splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    sources = [one for value in dockerfile.read(file)[0].all("COPY") for one in value.split()[:-1]]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source
    for pattern in allowed:  # and nothing else is
        assert any(fnmatch.fnmatch(source, pattern) for source in sources), pattern


def test_what_serves_has_no_torch_no_compiler_and_nothing_that_compresses() -> None:
    build, last = _stages("serve")
    assert not [value for value in build.all("COPY") if "compressors" in value]
    assert not re.search(r"apt-get|gcc|g\+\+|build-essential", " ".join(build.all("RUN")))
    assert not re.search(r"apt-get|pip", " ".join(last.all("RUN")))
    assert not {"torch", "nncf", "nvidia", "triton", "pip"} & set(_pins("serve"))


def test_what_serves_is_set_up_by_settings_that_exist() -> None:
    _, last = _stages("serve")
    given = {name for name in last.pairs("ENV") if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX).lower() for name in given} <= set(Settings.model_fields)
    port = Settings().port
    assert last.only("EXPOSE").split() == [str(port), str(port + 1)]
    assert last.pairs("ENV")["GEARSHIFT_STATE"] in json.loads(last.only("VOLUME"))
    assert last.only("STOPSIGNAL") == "SIGTERM"


def test_the_user_owns_every_folder_that_it_is_told_to_write() -> None:
    for name, wanted in (("serve", {"/state", "/cache", "/models"}), ("compress", {"/models"})):
        _, last = _stages(name)
        said = " ".join(last.all("RUN"))
        made = re.search(r"mkdir ([^&]*)", said)
        owned = re.search(r"chown (\S+) ([^&]*)", said)
        assert made and owned and owned[1] == last.only("USER")
        assert wanted <= set(made[1].split()) & set(owned[2].split())
    # Where a store at a URL is copied to does not hang on a home folder, which a number has not.
    _, last = _stages("serve")
    folders = {last.pairs("ENV")[f"{PREFIX}{one}"] for one in ("STATE", "STORE_CACHE")}
    assert folders == set(json.loads(last.only("VOLUME"))) == {"/state", "/cache"}


def test_what_compresses_has_a_compiler() -> None:
    _, last = _stages("compress")
    (installed,) = re.findall(r"apt-get install ([^&]*)", " ".join(last.all("RUN")))
    assert "g++" in installed.split()


def test_the_limit_is_what_is_promised_in_millions_of_bytes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text("utf-8")
    assert slim.LIMIT_MB == 450 and re.search(r"refuses more than\s450 MB", page)
    said = re.search(r"^\| packages [^|]*\| (\d+) MB", page, re.M)
    assert said and int(said[1]) <= slim.LIMIT_MB
    assert {"torch", "compressors", "nncf", "pip", "setuptools"} <= set(slim.FORBIDDEN)
    (tmp_path / "file").write_bytes(b"x" * 4_000_000)
    assert slim.size_mb(tmp_path) == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize(("limit", "code"), [(2, "larger than it may be"), (9, "must not: torch")])
def test_what_is_too_large_or_holds_too_much_is_refused(
    limit: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(_: Stage, folder: Path) -> Path:
        packages = folder / "lib" / "python3.11" / "site-packages"
        packages.mkdir(parents=True)
        (packages / "one").write_bytes(b"x" * 3_000_000)
        return folder

    monkeypatch.setattr(sys, "argv", ["slim"])
    monkeypatch.setattr(slim, "build", built)
    monkeypatch.setattr(slim, "unwanted", lambda _: ["torch"])
    monkeypatch.setattr(slim, "LIMIT_MB", limit)
    with pytest.raises(SystemExit, match=code):
        slim.main()


def test_the_version_of_python_is_the_one_that_was_locked_for() -> None:
    locked = re.search(r"--python-version (\S+)", (DOCKER / "lock.sh").read_text("utf-8"))
    assert locked
    for file in FILES:
        assert {stage.base for stage in dockerfile.read(file)} == {
            f"python:{locked[1]}-slim-bookworm"
        }


@pytest.mark.parametrize("name", ["serve", "compress"])
def test_a_lock_holds_what_the_project_asks_for(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    script = (DOCKER / "lock.sh").read_text("utf-8")
    wanted = re.search(rf'^{name.upper()}="([^"]*)"$', script, re.M)
    assert wanted and _locked_extras(name) == set(wanted[1].split())
    todo, seen = sorted(_locked_extras(name)), set()
    asked = [Requirement(line) for line in project["dependencies"]]
    while todo:
        extra = todo.pop()
        seen.add(extra)
        for requirement in map(Requirement, extras[extra]):
            if requirement.name == "gearshift":
                todo += sorted(requirement.extras - seen)
            else:
                asked.append(requirement)
    pins = _pins(name)
    for requirement in asked:
        if name == "compress" and requirement.name == "torch":
            continue  # installed by its version, from an index of its own
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin and requirement.specifier.contains(pin), (
            f"{requirement} is not met by {name}.lock; run deploy/docker/lock.sh"
        )


def test_torch_is_the_one_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    build, _ = _stages("compress")
    (asked,) = map(Requirement, project["optional-dependencies"]["torch"])
    assert asked.specifier.contains(build.pairs("ARG")["TORCH"])


def test_the_health_check_tells_a_server_that_is_ready_from_none(tmp_path: Path) -> None:
    _, last = _stages("serve")
    command = json.loads(last.only("HEALTHCHECK").partition(" CMD ")[2])
    command[0] = sys.executable
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        free = str(nobody.getsockname()[1])
        none = subprocess.run(command, env={"GEARSHIFT_PORT": free}, capture_output=True)
    with Server(models) as server:
        port = server.address.rpartition(":")[2]
        ready = subprocess.run(command, env={"GEARSHIFT_PORT": port}, capture_output=True)
    assert (none.returncode, ready.returncode) == (1, 0)


def test_a_dockerfile_is_read_as_an_engine_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(
        "# first\nARG BASE=python:3\nFROM ${BASE} AS build\nARG A=1\nRUN one \\\n# within\n"
        '  && two\nFROM scratch\nENV X="a b" \\\n Y=c\n',
        encoding="utf-8",
    )
    build, last = dockerfile.read(file)
    assert (build.name, build.base, last.base) == ("build", "python:3", "scratch")
    assert [(step.keyword, step.value, step.line) for step in build.instructions] == [
        ("ARG", "A=1", 4),
        ("RUN", "one && two", 5),
    ]
    assert last.pairs("ENV") == {"X": "a b", "Y": "c"}
    with pytest.raises(KeyError, match="no USER"):
        last.only("USER")
    file.write_text("RUN x\nFROM y\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected FROM or ARG first"):
        dockerfile.read(file)


def _stage(tmp_path: Path, text: str) -> Stage:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM x\n" + text, encoding="utf-8")
    return dockerfile.read(file)[0]


def test_steps_are_carried_out_in_order_where_they_belong(tmp_path: Path) -> None:
    stage = _stage(
        tmp_path,
        "ARG TOOLS=/opt/tools\nARG PREFIX=/opt/own\nARG WHAT=said\nWORKDIR /src\n"
        'COPY LICENSE ./x/\nCOPY deploy/recipes r\nRUN mkdir "$PREFIX"\n'
        'RUN test -f r/full.toml && cp x/LICENSE "$PREFIX"\n'
        'RUN python -c \'import os; print(os.environ["WHAT"])\' >> "$PREFIX/LICENSE"\n',
    )
    prefix = slim.build(stage, tmp_path)
    assert prefix == tmp_path / "own"
    written = (prefix / "LICENSE").read_text("utf-8")
    assert written == (ROOT / "LICENSE").read_text("utf-8") + "said\n"
    assert 0 < slim.size_mb(prefix) < 1


def test_a_step_that_fails_or_is_unknown_ends_it(tmp_path: Path) -> None:
    known = "ARG TOOLS=/t\nARG PREFIX=/p\n"
    with pytest.raises(subprocess.CalledProcessError):
        slim.build(_stage(tmp_path, known + "RUN false\n"), tmp_path)
    (tmp_path / "interpreter" / "python").unlink()
    (tmp_path / "interpreter").rmdir()
    with pytest.raises(ValueError, match="ADD cannot be carried out"):
        slim.build(_stage(tmp_path, known + "ADD x y\n"), tmp_path)


def test_what_must_not_be_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    assert "torch" in slim.unwanted(tmp_path)  # this very environment holds it
