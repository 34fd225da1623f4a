"""Searches as processes: killed, interrupted, side by side, and given nonsense. Really trained, for
size, which hardly differs from run to run, so that two searches can be compared by their findings.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from compressors import artifact, measure, usertask
from compressors.asked import Asked, Options
from compressors.search import choose, cli, offer
from compressors.search import run as searching
from compressors.search.space import REFERENCE, Candidate, Shape
from tests.compressors.builds import TASK, build_of

# Short measurements, one arithmetic, and the first strengths alone: which ones there are does not
# matter here.
CLOSE = 0.2
HURRIED = (
    "import typer; from compressors import measure; "
    "from compressors.search import choose, cli, run; "
    "measure.SECONDS_PER_BATCH_SIZE = 0.02; measure.MIN_RUNS = {}; "
    f"run.arithmetics = lambda: ('int8',); choose._CLOSE = {CLOSE}; "
    "app = typer.Typer(pretty_exceptions_enable=False); app.command()(cli.search); app()"
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
QUICK = [
    "--objective", "size", "--families", "prune-channels,prune-heads", "--epochs", "1,2",
    "--engine", "openvino", "--max-drop", "60%", "--budget", "9h",
]  # fmt: skip


def arguments(out: Path, task: str, options: tuple[str, ...]) -> list[str]:
    return [task, "--out", str(out), "--cache", str(out.parent / "cache"), *options]


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HURRIED, *arguments(out, TASK, options)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(out: Path, *options: str, task: str = TASK) -> str:
    """The same in this process, which has everything imported already."""
    app = typer.Typer()
    app.command()(cli.search)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS_PER_BATCH_SIZE", 0.02)
        patch.setattr(measure, "MIN_RUNS", {})
        patch.setattr(searching, "arithmetics", lambda: ("int8",))
        patch.setattr(choose, "_CLOSE", CLOSE)
        result = CliRunner().invoke(app, arguments(out, task, options))
    assert result.exit_code == 0, result.output
    return result.output


def stop(process: subprocess.Popen[str], line: str, how: signal.Signals) -> str:
    """Send a signal as soon as `line` is told; what was told until the end."""
    assert process.stdout is not None
    told = ""
    for each in process.stdout:
        told += each
        if line in each:
            process.send_signal(how)
            break
    told += process.stdout.read()
    process.wait(timeout=100)
    process.stdout.close()
    return told


def findings(out: Path, model: str = "tiny") -> list[dict[str, Any]]:
    """Of the journal, without what differs from run to run: seconds, and a size by some bytes, for
    an exporter numbers its nodes anew in every process."""
    lines = (out / model / "search.jsonl").read_text().splitlines()[1:]
    differs = ("seconds", "objective")
    return [{k: v for k, v in json.loads(line).items() if k not in differs} for line in lines]


def variants(out: Path, model: str = "tiny") -> set[str]:
    """The variants there, each of which is whole; and no leftovers."""
    paths = list((out / model).iterdir())
    assert [path.name for path in paths if path.name.startswith(".")] == []
    found = {path.name for path in paths if path.is_dir()}
    for name in found:
        assert artifact.read(out / model / name).variant == name
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The store of a search that nothing disturbed, and what it told."""
    out = tmp_path_factory.mktemp("whole") / "models"
    return out, run(out, *QUICK)


def test_a_search_builds_the_frontier_and_says_why_it_left_the_rest(
    whole: tuple[Path, str],
) -> None:
    out, told = whole
    assert "prune-heads" in told
    assert "no heads can be removed" in told
    assert "baseline: fp32" in told
    assert "best: " in told
    recipes = (out / "tiny" / "search.toml").read_text()
    assert {name for name in variants(out) if f'variants."{name}"' not in recipes} == {"fp32"}
    evaluated = [f for f in findings(out) if f["kind"] == "evaluated"]
    assert {f["candidate"]["epochs"] for f in evaluated if not f["engine"]} == {1, 2}
    smallest = min(variants(out), key=lambda name: artifact.read(out / "tiny" / name).bytes_on_disk)
    assert f"best: {smallest}," in told
    assert (out / "tiny" / "sample.json").is_file()


def test_what_kill_9_leaves_is_gone_on_from(whole: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "models"
    stop(start(out, *QUICK), ", trained for 2 epochs", signal.SIGKILL)
    before = findings(out)
    assert any(f["kind"] == "evaluated" and not f["engine"] for f in before)
    told = run(out, *QUICK)
    after = findings(out)
    assert after[: len(before)] == before
    trained = [json.dumps(f["candidate"]) for f in before if f["kind"] == "evaluated"]
    assert len(trained) == len(set(trained))
    for finding in before:
        if finding["kind"] == "evaluated" and not finding["engine"]:
            name = finding["candidate"]["shape"]["strength"]
            epochs = finding["candidate"]["epochs"]
            assert f"prune-channels-{name:g}, trained for {epochs} epochs" not in told
    assert after == findings(whole[0])
    assert variants(out) == variants(whole[0])


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "models"
    process = start(out, *QUICK)
    told = stop(process, "int8, executed", signal.SIGINT)
    assert process.returncode == 130, told
    assert "interrupted; say the same again to go on" in told
    assert "Traceback" not in told
    assert [f["candidate"]["arithmetic"] for f in findings(out)][:1] == ["fp32"]


def test_two_searches_at_once_do_the_work_once(tmp_path: Path) -> None:
    out = tmp_path / "models"
    few = [*QUICK, "--families", "student", "--epochs", "1"]
    processes = [start(out, *few) for _ in range(2)]
    told = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert sum("another search of this task is running" in text for text in told) == 1
    found = [json.dumps(f, sort_keys=True) for f in findings(out)]
    assert len(found) == len(set(found))
    assert variants(out) >= {"fp32"}


WATCHED = """
from pathlib import Path
import tests.tiny_task as tiny

class Watched(tiny.Tiny):
    name = "watched"

    def score(self, outputs, targets):
        test = self.samples("test").targets
        is_test = len(targets) == len(test) and (targets == test).all()
        with Path({told!r}).open("a") as file:
            file.write("test\\n" if is_test else "other\\n")
        return super().score(outputs, targets)

    def student(self):
        return None
"""


def test_test_scores_are_seen_once_a_variant_after_everything_else(tmp_path: Path) -> None:
    told = tmp_path / "scores"
    task = tmp_path / "watched_task.py"
    task.write_text(WATCHED.format(told=str(told)))
    out = tmp_path / "models"
    printed = run(out, *QUICK, "--families", "student,prune-heads", task=str(task))
    assert "the task's student() is None" in printed  # and everything is refused: arithmetics alone
    calls = told.read_text().split()
    built = variants(out, "watched")
    assert calls.count("test") == len(built)
    searched = len([f for f in findings(out, "watched") if f["kind"] == "evaluated"])
    # Every score before the build of the first variant is of validation, and so are those of the
    # build until a variant's engine is chosen.
    assert calls.index("test") > searched


def test_an_earlier_searchs_variants_are_withdrawn_and_nobody_elses(tmp_path: Path) -> None:
    own = 'steps = [{ technique = "low-rank", cost = 0.5, epochs = 0 }]'
    pruned = Candidate(Shape("low-rank", 0.5), 0, "fp32")
    student = Candidate(Shape("low-rank", 0.25), 0, "fp32")
    found = {"low-rank-0.5": pruned, "low-rank-0.25": student}
    earlier = offer.text_of(found)
    build_of(earlier, tmp_path)
    build_of(f"[variants.fp32]\n[variants.mine]\n{own}", tmp_path)
    # Somebody made one of the two anew, by another recipe and without the mark.
    build_of(f'[variants.fp32]\n[variants."low-rank-0.25"]\n{own}', tmp_path, replace=True)
    assert offer.withdraw(earlier, ["fp32"], tmp_path / "tiny") == ["low-rank-0.5"]
    assert variants(tmp_path) == {"fp32", "mine", "low-rank-0.25"}

    # A candidate of that name is offered under another one; the same recipe keeps its name.
    options = Options(tmp_path, engines=("openvino",))
    asked = Asked(usertask.load(TASK), offer.book_of({}), options)
    named = offer.names([Candidate(REFERENCE, 0, "fp32"), student], asked)
    assert list(named) == ["fp32", "low-rank-0.25-found"]
    offer.check_reference(asked)
    assert offer.withdraw("", ["fp32"], tmp_path / "tiny") == []
    assert variants(tmp_path) == {"fp32", "mine", "low-rank-0.25"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-drop", "5"], "--max-drop: expected a share such as 0.5% or 0.005, got '5'"),
        (["--max-drop=-1%"], "--max-drop: expected a share such as 0.5% or 0.005, got '-1%'"),
        (["--max-drop", "abc"], "--max-drop: expected a share such as 0.5% or 0.005, got 'abc'"),
        (["--budget", "0"], "--budget: expected a time such as 90s, 20m or 2h, got '0'"),
        (["--budget", "5x"], "--budget: expected a time such as 90s, 20m or 2h, got '5x'"),
        (["--objective", "speed"], "--objective: expected latency, cost, size, got 'speed'"),
        (["--families", "prune-tails"], "got 'prune-tails'"),
        (["--families", ","], "--families: expected some of prune-channels"),
        (["--epochs", "3,1"], "--epochs: expected rising numbers such as 1,3,8, got '3,1'"),
        (["--epochs", "0"], "--epochs: expected rising numbers such as 1,3,8, got '0'"),
        (["--engine", "abacus"], "--engine: expected one of"),
    ],
)
def test_options_that_make_no_sense_are_told(options: list[str], told: str, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(cli.search)
    result = CliRunner().invoke(app, [TASK, "--out", str(tmp_path / "models"), *options])
    assert result.exit_code == 2
    assert told in result.output
    assert not (tmp_path / "models").exists()


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    app = typer.Typer()
    app.command()(cli.search)
    result = CliRunner().invoke(app, arguments(tmp_path / "file", TASK, tuple(QUICK)))
    assert result.exit_code == 1
    assert "cannot write" in result.output
