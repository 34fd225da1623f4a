"""`gearshift compress` as a process: exit codes, messages, Ctrl-C."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from compressors import artifact
from tests.compressors.builds import COMMAND, TASK
from tests.conftest import TINY_RECIPES
from tests.stores import seal

# Unless engines or the cache are what is tested.
PLAIN = ["--engine", "openvino", "--no-cache"]


def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    path = tmp_path / "recipes.toml"
    path.write_text(TINY_RECIPES)
    return path


def test_a_build_prints_table_and_draws_picture(tmp_path: Path, recipes: Path) -> None:
    out = tmp_path / "models"
    done = run(TASK, "--out", out, "--recipes", recipes, "--only", "int8", *PLAIN)
    assert done.returncode == 0, done.stderr
    assert "│ fp32 " in done.stdout
    assert "│ int8 " in done.stdout
    assert (out / "tiny" / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "tiny" / "frontier.html").read_text().startswith("<!doctype html>")
    assert "[2/2] int8: built in" in done.stderr
    assert "Traceback" not in done.stderr
    # The exporters' own chatter stays away.
    assert [
        line for line in done.stderr.splitlines() if not line.startswith(("[", "reading"))
    ] == []


def test_a_failed_variant_is_exit_code_1(tiny_store: Path, tmp_path: Path, recipes: Path) -> None:
    store = Path(shutil.copytree(tiny_store, tmp_path / "store"))
    (store / "tiny" / "int8" / "model.bin").unlink()
    done = run(TASK, "--out", store, "--recipes", recipes, *PLAIN)
    assert done.returncode == 1
    assert "int8 failed: StoreError" in done.stdout
    assert "│ fp32 " in done.stdout
    # There is something to call the others with.
    assert (store / "tiny" / "sample.json").is_file()


def test_the_page_keeps_what_earlier_runs_built(
    tiny_store: Path, tmp_path: Path, recipes: Path
) -> None:
    store = Path(shutil.copytree(tiny_store, tmp_path / "store"))
    for name in ("damaged", "stranger"):
        shutil.copytree(store / "tiny" / "int8", store / "tiny" / name)
    (store / "tiny" / "damaged" / "model.bin").unlink()
    card = artifact.read(store / "tiny" / "stranger")
    card = card.model_copy(update={"variant": "stranger", "parent_digest": "0" * 64})
    (store / "tiny" / "stranger" / "card.json").write_text(card.model_dump_json())
    seal(store / "tiny" / "stranger")
    done = run(TASK, "--out", store, "--recipes", recipes, "--only", "int8", *PLAIN)
    assert done.returncode == 0, done.stderr
    assert "│ distilled " not in done.stdout
    page = (store / "tiny" / "frontier.html").read_text()
    assert all(name in page for name in ("fp32", "int8", "distilled"))
    assert "stranger" not in page
    assert "damaged" not in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nope", "--out", "o"], "error: unknown task 'nope'"),
        ([TASK, "--out", "o", "--only", "fp33"], "no variant fp33; it has"),
        (
            [TASK, "--out", "o", "--engine", "abacus"],
            "--engine: expected one of onnxruntime, openvino",
        ),
        ([TASK, "--out", "o", "--engine", "torch,torch"], "--engine: torch is named twice"),
        ([TASK, "--out", "o", "--no-cache", "--cache", "c"], "--cache or --no-cache, got both"),
        ([TASK, "--out", "o", "--price-per-lane-hour", "-1"], "--price-per-lane-hour"),
        ([TASK, "--out", "o", "--price-per-lane-hour", "nan"], "price-per-lane-hour"),
        ([TASK], "--out"),
    ],
)
def test_usage_errors_are_exit_code_2(arguments: list[str], told: str, recipes: Path) -> None:
    done = run(*arguments, "--recipes", recipes)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("o").exists()


def test_a_task_that_raises_is_told_with_its_line(tmp_path: Path, recipes: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1\nraise OSError('no data')\n")
    done = run(tmp_path / "bad.py", "--out", tmp_path / "models", "--recipes", recipes)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/bad.py:2: import: OSError: no data\n"
    assert not (tmp_path / "models").exists()


def test_ctrl_c_leaves_the_store_whole(tmp_path: Path, recipes: Path) -> None:
    out = tmp_path / "models"
    process = subprocess.Popen(
        [*COMMAND, TASK, "--out", str(out), "--recipes", str(recipes), *PLAIN],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    # Once the first variant is finished and the next one is being built.
    for line in process.stderr:
        if "fp32: built in" in line:
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    artifact.read(out / "tiny" / "fp32")
    assert [p.name for p in (out / "tiny").iterdir() if p.name.startswith(".")] == []


def test_a_terminal_gets_bars(tiny_store: Path, tmp_path: Path, recipes: Path) -> None:
    store = Path(shutil.copytree(tiny_store, tmp_path / "store"))
    shutil.rmtree(store / "tiny" / "int8")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, TASK, "--out", str(store), "--recipes", str(recipes), *PLAIN],
        stderr=follower,
        stdout=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # what Linux answers when the other end is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(leader)
    assert process.wait(30) == 0
    assert "━".encode() in seen
    assert b"latency, batch" in seen


def test_help_is_worth_reading() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("TASK", "--recipes", "--only", "--engine", "--replace", "--dry-run", "Exit code"):
        assert word in done.stdout
