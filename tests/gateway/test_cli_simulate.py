"""`gearshift simulate` and `gearshift plan` as a user runs them: real processes, tiny replays."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.router.simulate.workloads import table_of
from tests.stores import write_three

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GEARSHIFT_")},
    "COLUMNS": "120",
}
SCRIPT = Path(sys.executable).parent / "gearshift"
HEADER = (
    "trace,load,lanes,seed,policy,attainment,effective_accuracy_all,effective_accuracy_answered,"
    "cost_usd_per_million,bound"
)

Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "six.json"
    path.write_text(table_of(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    return models


def run(*arguments: str | Path, **environment: str) -> Result:
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT | environment,
    )


def simulate(*arguments: str | Path, trace: str | Path = "poisson") -> Result:
    """A small run in one process; what `arguments` say comes last and so wins."""
    small = ("--load", "1.5", "--lanes", "2", "--seeds", "1", "--requests", "200", "--jobs", "1")
    return run("simulate", "--trace", trace, *small, *arguments)


def plan(*arguments: str | Path, trace: str | Path = "poisson") -> Result:
    small = ("--seeds", "1", "--requests", "300", "--jobs", "1")
    return run("plan", "--trace", trace, *small, *arguments)


def one_line(result: Result, code: int) -> str:
    """The one line of stderr that a failed command leaves."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr and not result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_policy_is_compared_and_none_is_above_the_bound(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = simulate(
        "--variants", table, "--load", "0.5,2", "--lanes", "1,2", "--seeds", "2", "--csv", out
    )
    assert result.returncode == 0, result.stderr
    assert out.read_text(encoding="utf-8").splitlines()[0] == HEADER
    rows = rows_of(out)
    assert {row["load"] for row in rows} == {"0.5", "2.0"}
    assert {row["lanes"] for row in rows} == {"1", "2"} and {r["seed"] for r in rows} == {"1", "2"}
    names = {row["policy"] for row in rows}
    assert {"gearshift", "static:int8", "round_robin"} <= names
    assert len(rows) == 2 * 2 * 2 * len(names)
    for row in rows:
        assert float(row["effective_accuracy_all"]) <= float(row["bound"])
        assert 0 <= float(row["attainment"]) <= 1
        if float(row["attainment"]):
            share = float(row["effective_accuracy_answered"]) * float(row["attainment"])
            assert share == pytest.approx(float(row["effective_accuracy_all"]))
    for word in ("bound", "gearshift", "middle variant (int8)", "load 0.5 on 1 lane:", *names):
        assert word in result.stdout


def test_the_same_seeds_give_the_same_file_however_many_processes(
    table: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    chosen = ("--policies", "gearshift,random_choice,static:int8", "--noise", "lognormal:0.2")
    for path, jobs in ((one, "1"), (two, "2")):
        seeds = ("--seeds", "2", "--jobs", jobs, "--csv", path)
        assert simulate("--variants", table, *chosen, *seeds).returncode == 0
    assert one.read_bytes() == two.read_bytes()


def test_json_says_what_the_tables_say(table: Path) -> None:
    result = simulate("--variants", table, "--policies", "gearshift,static:int8", "--json")
    body: dict[str, Any] = json.loads(result.stdout)
    (only,) = body["runs"]
    ours = only["policies"]["gearshift"]
    assert ours["effective_accuracy_all"]["mean"] <= only["bound"]["mean"]
    assert ours["attainment"]["half_interval"] is None
    assert only["best_single_variant"] == "static:int8"
    assert body["models"]["model"]["middle"] == "int8"
    assert [row["policy"] for row in body["replays"]] == ["gearshift", "static:int8"]


def test_a_store_is_replayed_by_its_cards(store: Path, tmp_path: Path) -> None:
    trace = tmp_path / "day.csv"
    trace.write_text("timestamp,tokens\n" + "".join(f"{i / 7:.3f},3\n" for i in range(400)))
    out = tmp_path / "out.csv"
    result = simulate(store, "echo", "--policies", "gearshift", "--csv", out, trace=trace)
    assert result.returncode == 0, result.stderr
    assert "echo: fp32 95.00 %, int8 94.00 %, small 90.00 %" in result.stdout
    assert rows_of(out)[0]["trace"] == "day.csv"
    assert simulate(store, "--policies", "gearshift").returncode == 0  # its only model


def test_the_tenants_that_come_with_it(table: Path) -> None:
    result = simulate("--variants", table, "--mix", "tenants", "--slow-from-half", "2")
    assert result.returncode == 0, result.stderr


def test_several_models_are_told_apart_by_the_mix(table: Path, tmp_path: Path) -> None:
    listed = json.loads(table.read_text(encoding="utf-8"))["variants"]
    models, mix = tmp_path / "two.json", tmp_path / "mix.toml"
    models.write_text(json.dumps({"models": {"a": listed, "b": listed[2:]}}), encoding="utf-8")
    tenants = ('name = "x"\nshare = 1\nmodel = "a"', 'name = "y"\nshare = 1\nmodel = "b"')
    mix.write_text("".join(f"[[tenant]]\n{one}\nmax_latency_ms = 30\n" for one in tenants))
    result = simulate("--variants", models, "--mix", mix, "--policies", "gearshift")
    assert result.returncode == 0, result.stderr
    assert "a: int8, b: distilled-int8" not in result.stderr
    assert "expected one of a, b, got nothing" in one_line(simulate("--variants", models), 2)


def test_the_picture_is_drawn(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    result = simulate("--variants", table, "--policies", "gearshift", "--picture", path)
    assert result.returncode == 0, result.stderr
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_the_library_a_picture_says_what_to_install(table: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from importlib import util; find = util.find_spec; "
        "util.find_spec = lambda name, *a: None if name == 'matplotlib' else find(name, *a); "
        "from gateway.cli import main; main()"
    )
    tried = subprocess.run(
        [sys.executable, "-c", code, "simulate", "--variants", table, "--trace", "poisson",
         "--picture", tmp_path / "x.png"],
        capture_output=True, text=True, timeout=60, env=ENVIRONMENT,
    )  # fmt: skip
    assert "pip install 'gearshift[simulate]'" in one_line(tried, 1)


BAD = [
    (("--load", "0"), "--load: expected numbers above 0, at most 1000, separated by commas"),
    (("--load", "1,x"), "got 'x'"),
    (("--load", "nan"), "got 'nan'"),
    (("--lanes", "0"), "--lanes: expected whole numbers from 1 to 1024"),
    (("--lanes", "1.5"), "got '1.5'"),
    (("--policies", "best"), "unknown policy 'best'; there are gearshift, "),
    (("--policies", "static:nothing"), "static:fp32, static:bf16, static:int8"),
    (("--policies", ""), "unknown policy ''"),
    (("--max-latency-ms", "-3"), "--max-latency-ms: expected a positive number"),
    (("--min-accuracy", "110%"), "--min-accuracy: expected a number from 0 to 1"),
    (("--optimize", "speed"), "--optimize: expected one of accuracy, cost, latency"),
    (("--noise", "much"), "--noise: expected measured, none, or lognormal:SIGMA"),
    (("--mix", "nowhere.toml"), "--mix: expected a file or `tenants`; nowhere.toml: No such file"),
    (("--mix", "tenants", "--min-accuracy", "0.9"), "--min-accuracy: expected in the mix"),
    (("--picture", "x.pdf"), "--picture: expected a file that ends in .png, got 'x.pdf'"),
    (("--usd-per-lane-hour", "inf"), "--usd-per-lane-hour: expected a finite number"),
    (("some-store",), "expected either MODELS, a store, or --variants, a table; got both"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(one) for one, _ in BAD])
def test_a_value_that_makes_no_sense_is_told_in_one_line(
    table: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert words in one_line(simulate("--variants", table, *arguments), 2)


def test_a_trace_that_is_none_is_told(table: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("timestamp\n3\n1\n", encoding="utf-8")
    for trace, words in (
        ("nowhere.csv", "--trace: there is no such file; arrivals 'nowhere.csv': process: "),
        ("gamma:cv=-4", "--trace: arrivals 'gamma:cv=-4': cv: expected a number from 0.01 to 20"),
        (str(bad), "--trace: bad.csv: line 3: timestamp: expected no time before 3 of line 2"),
    ):
        assert words in one_line(simulate("--variants", table, trace=trace), 2)
    odd = simulate("--variants", table, "--trace-format", "words", trace=bad)
    assert "expected one of auto, arrivals, counts, tokens, got 'words'" in one_line(odd, 2)


def test_files_that_are_none_are_told(store: Path, tmp_path: Path) -> None:
    broken, mix = tmp_path / "broken.json", tmp_path / "mix.toml"
    broken.write_text('[{"name": "a", "accuracy": 2, "latency_ms": {"1": 1}}]', encoding="utf-8")
    mix.write_text('[[tenant]]\nname = "a"\nshare = -1\n', encoding="utf-8")
    assert "broken.json: variant 'a': accuracy: expected a number from 0 to 1, got 2" in one_line(
        simulate("--variants", broken), 2
    )
    assert "nowhere.json: cannot be read" in one_line(simulate("--variants", "nowhere.json"), 2)
    assert "mix.toml: tenant 'a': share: expected a positive number" in one_line(
        simulate(store, "--mix", mix), 2
    )
    assert "unknown model 'nothing'; there are echo" in one_line(simulate(store, "nothing"), 1)
    assert "nowhere: not a folder" in one_line(simulate("nowhere"), 1)
    assert "got neither" in one_line(simulate(), 2)
    nowhere = simulate(store, "--csv", tmp_path / "no" / "x.csv")
    assert "cannot be written: there is no folder" in one_line(nowhere, 1)


def test_what_no_variant_can_meet_is_told_with_the_tenant_and_what_would_fit(
    table: Path, tmp_path: Path
) -> None:
    told = one_line(simulate("--variants", table, "--min-accuracy", "0.99"), 3)
    assert "tenant 'all': no variant of model can meet these constraints" in told
    assert "would fit: min_accuracy 0.935" in told
    mix = tmp_path / "mix.toml"
    mix.write_text('[[tenant]]\nname = "hasty"\nshare = 1\nmax_latency_ms = 0.01\n')
    told = one_line(simulate("--variants", table, "--mix", mix), 3)
    assert "tenant 'hasty'" in told and "would fit: max_latency_ms" in told


def test_a_card_without_latency_is_left_out_and_named(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "models"
    shutil.copytree(store, copy)
    card = copy / "echo" / "int8" / "card.json"
    body = json.loads(card.read_text(encoding="utf-8")) | {"latency": []}
    card.write_text(json.dumps(body), encoding="utf-8")
    result = simulate(copy, "echo", "--policies", "gearshift")
    assert result.returncode == 0
    assert "warning: left out: echo/int8: " in result.stderr
    assert "int8" not in result.stdout


def test_plan_finds_the_lanes_that_suffice(table: Path) -> None:
    asked = ("--variants", table, "--rate-per-s", "9000", "--target-accuracy", "0.92")
    body = json.loads(plan(*asked, "--usd-per-lane-hour", "0.1", "--json").stdout)
    lanes = body["lanes"]
    assert body["least_lanes_of_any_policy"] <= lanes
    assert body["worst_attainment"] >= 0.999 and body["accuracy"] >= 0.92
    assert body["usd_per_hour"] == pytest.approx(0.1 * lanes)
    assert body["usd_per_million"] == pytest.approx(0.1 * lanes / 3600 / 9000 * 1e6)
    assert sum(row["share_of_answers"] for row in body["variants"]) == pytest.approx(1)
    result = plan(*asked)
    assert f"poisson at 9,000 requests/s needs {lanes} lanes" in result.stdout
    if lanes > 1:
        fewer = one_line(plan(*asked, "--max-lanes", str(lanes - 1)), 3)
        assert f"no number of lanes up to {lanes - 1} suffices" in fewer


def test_a_replay_that_is_over_before_anything_is_scarce_is_warned_of(table: Path) -> None:
    result = plan("--variants", table, "--rate-per-s", "90000", "--max-lanes", "2")
    assert result.returncode == 0
    assert "warning: a replay lasts 3.3 ms, less than 10 deadlines of 30 ms" in result.stderr
    longer = plan("--variants", table, "--rate-per-s", "900")
    assert longer.stderr == ""


def test_plan_takes_the_rate_of_a_trace_and_a_process_has_none(table: Path, tmp_path: Path) -> None:
    trace = tmp_path / "counts.csv"
    trace.write_text("count\n" + "\n".join(["90", "110"] * 40), encoding="utf-8")
    body = json.loads(plan("--variants", table, "--json", trace=trace).stdout)
    assert body["rate_per_s"] == pytest.approx(100) and body["lanes"] == 1
    told = one_line(plan("--variants", table), 2)
    assert "--rate-per-s: expected one, for 'poisson' has no rate of its own" in told


def test_plan_says_why_no_number_of_lanes_suffices(table: Path) -> None:
    asked = ("--variants", table, "--rate-per-s", "90000", "--requests", "6000")
    told = one_line(plan(*asked, "--max-lanes", "2"), 3)
    assert "no policy could answer more than" in told and "raise --max-lanes" in told
    told = one_line(plan(*asked, "--target-accuracy", "0.94"), 3)
    assert "expected at most 0.935" in told
    told = one_line(plan(*asked, "--target-accuracy", "0.93", "--max-lanes", "20"), 3)
    assert "no policy could reach an effective accuracy above" in told
    told = one_line(plan("--variants", table, "--rate-per-s", "-1"), 2)
    assert "rate_per_s: expected requests per second" in told
    told = one_line(plan(*asked, "--target-attainment", "1.5"), 2)
    assert "--target-attainment: expected a share above 0" in told
