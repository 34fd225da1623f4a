"""The command line as a user runs it: its exit code, what it prints and where.

Commands that only read a store run in this process; what a process has to itself (help, modules
imported, ports, signals) is tested on a real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.settings import Settings
from router.card import VariantCard
from tests.stores import write_three, write_variant

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GEARSHIFT_")},
    "COLUMNS": "120",
}
SCRIPT = Path(sys.executable).parent / "gearshift"


Result = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(ENVIRONMENT):
        monkeypatch.delenv(name)


def run(*arguments: str | Path, **environment: str) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(app, list(map(str, arguments)), env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Result(arguments, result.exit_code, result.stdout, result.stderr)


def run_process(*arguments: str | Path, **environment: str) -> Result:
    """Run the installed `gearshift`."""
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT | environment,
    )


def one_line(result: Result, code: int) -> str:
    """The one line of stderr that a failed command leaves."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    return models


@pytest.fixture
def flipped(store: Path, tmp_path: Path) -> Path:
    """A copy of `store` with one bit of one file of `int8` changed."""
    copy = tmp_path / "models"
    shutil.copytree(store, copy)
    card = copy / "echo" / "int8" / "scores.safetensors"
    content = bytearray(card.read_bytes())
    content[-1] ^= 1
    card.write_bytes(content)
    return copy


def test_version_and_help_name_every_command() -> None:
    assert run_process("--version").stdout.startswith("gearshift ")
    text = run_process("--help").stdout
    for command in ("compress", "list", "show", "verify", "serve", "decide", "demo"):
        assert f" {command} " in text
    assert "Compress a PyTorch model" in text


def test_serve_help_has_every_setting_as_an_option() -> None:
    text = run_process("serve", "--help", COLUMNS="200").stdout
    for name in Settings.model_fields:
        assert "--" + name.replace("_", "-") in text
    assert "GEARSHIFT_MAX_QUEUE" in text


def test_a_command_whose_extra_is_missing_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; from gateway.cli import main; main()"
    command = [sys.executable, "-c", code]
    listed = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert "Compress a PyTorch model" in listed.stdout
    tried = subprocess.run(
        [*command, "compress", "digits", "--out", "nowhere"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "pip install 'gearshift[compress]'" in one_line(tried, 1)


def test_no_command_of_a_store_imports_torch(store: Path) -> None:
    code = (
        "import sys; from gateway.cli import app; "
        f"app(['list', {str(store)!r}], standalone_mode=False); "
        "print({'torch', 'openvino', 'fastapi', 'compressors'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "set()", result.stderr


def test_compress_takes_its_own_options_and_help() -> None:
    result = run_process("compress", "--help")
    assert result.returncode == 0
    assert "gearshift compress" in result.stdout and "--recipes" in result.stdout


def test_list_shows_what_was_measured(tiny_store: Path) -> None:
    result = run("list", tiny_store)
    assert result.returncode == 0, result.stderr
    assert "fp32 (reference)" in result.stdout and "int8" in result.stdout
    rows = json.loads(run("list", tiny_store, "--json").stdout)["variants"]
    card = _card(tiny_store / "tiny" / "int8")
    (row,) = [row for row in rows if row["variant"] == "int8"]
    assert row["accuracy"] == card.accuracy.value
    assert row["p99_ms"] == card.latency[0].p99_ms


def test_list_costs_at_the_price_that_is_set(store: Path) -> None:
    cheap = json.loads(run("list", store, "--json").stdout)["variants"][0]
    dear = json.loads(
        run("list", store, "--json", GEARSHIFT_USD_PER_LANE_HOUR="0.5").stdout
    )["variants"][0]  # fmt: skip
    assert dear["cost_usd_per_million"] == pytest.approx(10 * cheap["cost_usd_per_million"])


def test_list_names_broken_variants_too(flipped: Path) -> None:
    result = run("list", flipped)
    assert result.returncode == 0
    assert "broken: echo/int8: scores.safetensors has digest" in result.stdout
    assert "fp32 (reference)" in result.stdout
    (broken,) = json.loads(run("list", flipped, "--json").stdout)["broken"]
    assert (broken["model"], broken["variant"]) == ("echo", "int8")


def test_list_of_nothing_that_can_be_served(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32").joinpath("card.json").unlink()
    result = run("list", tmp_path)
    assert "broken: echo/fp32: card.json is missing" in result.stdout
    assert "nothing here can be served" in one_line(result, 1)


@pytest.mark.parametrize("command", [["list"], ["verify"], ["decide"], ["serve", "--models"]])
def test_a_store_that_is_missing_or_empty(command: list[str], tmp_path: Path) -> None:
    model = ["echo"] if command == ["decide"] else []
    invoke = run_process if command[0] == "serve" else run
    missing = one_line(invoke(*command, tmp_path / "nowhere", *model, GEARSHIFT_PORT="0"), 1)
    assert "nowhere" in missing and "No such file" in missing
    empty = one_line(invoke(*command, tmp_path, *model, GEARSHIFT_PORT="0"), 1)
    assert "no variants here" in empty


def test_verify_finds_one_flipped_bit(store: Path, flipped: Path) -> None:
    whole = run("verify", store)
    assert whole.returncode == 0 and whole.stdout.count("ok ") == 3
    result = run("verify", flipped)
    assert "1 of 3 variants are not whole" in one_line(result, 1)
    (line,) = [line for line in result.stdout.splitlines() if not line.startswith("ok ")]
    assert line.startswith("BROKEN  echo/int8: scores.safetensors has digest")
    body = json.loads(run("verify", flipped, "--json").stdout)
    assert body["whole"] == ["echo/fp32", "echo/small"] and len(body["broken"]) == 1


def test_show_prints_every_field_of_the_card(tiny_store: Path) -> None:
    folder = tiny_store / "tiny" / "int8"
    card = _card(folder)
    text = run("show", folder).stdout
    for name in VariantCard.model_fields:
        assert name.replace("_", " ") in text, name
    for value in (card.parent_digest, card.machine.cpu, card.engine.version, card.task.metric):
        assert value in text
    assert all(name in text for name in (*card.versions, *card.seeds, *card.recipe[0].settings))
    assert text.count("\n") < 120
    assert json.loads(run("show", folder, "--json").stdout) == card.model_dump(mode="json")


def test_show_of_what_is_no_variant(store: Path, flipped: Path) -> None:
    line = one_line(run("show", store / "echo" / "int4"), 1)
    assert "no such variant; echo has fp32, int8, small" in line
    assert "a folder of fp32, int8, small" in one_line(run("show", store / "echo"), 1)
    assert "scores.safetensors has digest" in one_line(run("show", flipped / "echo" / "int8"), 1)


def test_decide_says_who_answers_and_why_not_the_others(store: Path) -> None:
    result = run("decide", store, "echo", "--max-latency-ms", "1.5")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("int8: most-accurate: ")
    assert "predicted latency  1 ms" in result.stdout
    assert "94.00 % [93.00, 95.00]" in result.stdout
    assert "also allowed       small" in result.stdout
    (refused,) = [line for line in result.stdout.splitlines() if "max_latency_ms" in line]
    assert [cell.strip() for cell in refused.strip("│").split("│")] == [
        "fp32", "max_latency_ms", "1.5", "2",
    ]  # fmt: skip


def test_decide_as_json_with_every_option(store: Path) -> None:
    result = run(
        "decide", store, "echo", "--max-latency-ms", "0.1", "--min-accuracy", "50%", "--optimize",
        "cost", "--max-cost-usd-per-million", "1", "--relax", "latency", "--rows", "2", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    body = json.loads(result.stdout)
    assert body["variant"] == "small"
    assert body["reason"] == "relaxed" and body["relaxed"] == ["latency"]
    pinned = json.loads(run("decide", store, "echo", "--variant", "reference", "--json").stdout)
    assert (pinned["variant"], pinned["reason"]) == ("fp32", "pinned")


def test_decide_names_the_nearest_values_when_nothing_fits(store: Path) -> None:
    result = run("decide", store, "echo", "--max-latency-ms", "0.1")
    assert result.returncode == 3 and result.stderr == ""
    assert "would fit: max_latency_ms 0.2" in result.stdout
    body = json.loads(run("decide", store, "echo", "--max-latency-ms", "0.1", "--json").stdout)
    nearest = str(body["nearest"]["max_latency_ms"])
    assert run("decide", store, "echo", "--max-latency-ms", nearest).returncode == 0


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--max-latency-ms", "-1", "a positive number of milliseconds"),
        ("--max-latency-ms", "nan", "a positive number of milliseconds"),
        ("--min-accuracy", "101%", "a percentage from 0% to 100%"),
        ("--max-cost-usd-per-million", "cheap", "a number of USD per million"),
        ("--optimize", "speed", "one of accuracy, cost, latency"),
        ("--relax", "latency,latency", "each once"),
        ("--variant", "int4", "echo has no variant 'int4'; there are fp32, int8, small"),
    ],
)
def test_decide_refuses_a_value_by_its_option(
    store: Path, option: str, value: str, expected: str
) -> None:
    line = one_line(run("decide", store, "echo", option, value), 2)
    assert line.startswith(f"error: {option}: ") and expected in line


def test_decide_for_an_unknown_model(store: Path) -> None:
    assert "unknown model 'ego'; there are echo" in one_line(run("decide", store, "ego"), 1)


def test_decide_keeps_to_the_operators_defaults(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "gearshift.toml"
    config.write_text("default_max_latency_ms = 0.5\n", encoding="utf-8")
    result = run("decide", store, "echo", "--config", config, "--json")
    assert json.loads(result.stdout)["variant"] == "small"


def test_serve_refuses_a_bad_setting_by_its_source(store: Path, tmp_path: Path) -> None:
    line = one_line(run_process("serve", "--models", store, "--port", "99999"), 2)
    assert "port (from --port)" in line
    line = one_line(run_process("serve", "--models", store, GEARSHIFT_LANES="none"), 2)
    assert "lanes (from GEARSHIFT_LANES)" in line
    assert "cannot be read" in one_line(run_process("serve", "--config", tmp_path / "no.toml"), 2)
    assert run_process("serve", "--log-level", "loud").returncode == 2


def test_a_port_in_use_is_one_line(store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in (["serve"], ["demo"]):
            line = one_line(run_process(*command, "--models", store, "--port", port), 1)
            assert line == f"error: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "cannot listen on nowhere.invalid" in one_line(
        run_process("serve", "--models", store, "--host", "nowhere.invalid"), 1
    )


@contextmanager
def started(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], list[str], str]]:
    """A server, once it says that it is settled: the process, what it printed, and its URL."""
    command = [SCRIPT, *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        while not lines or not lines[-1].startswith(("ready: ", "not ready: ")):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            lines.append(line.rstrip("\n"))
        yield process, lines, lines[-1].partition(": ")[2].rstrip("/")
    finally:
        process.kill()
        process.communicate()


def _get(url: str, body: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, body, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_from_ready_to_a_clean_end(flipped: Path, number: signal.Signals) -> None:
    write_variant(flipped, "echo", "refuses", fail_load=True)
    with started("serve", "--models", flipped) as (process, lines, url):
        assert lines[0] == f"listening on {url}"
        assert any(line.startswith("left out: echo/int8: ") for line in lines)
        assert any(line.startswith("failed: echo/refuses: echo refuses to load") for line in lines)
        assert "echo: 2 of 3 serve: fp32, small" in lines
        assert _get(f"{url}/readyz")[0] == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in err and out.endswith("stopped\n")


def test_a_running_request_is_answered_before_the_end(tmp_path: Path) -> None:
    write_variant(tmp_path, "slow", "fp32", delay_ms=500)
    body = json.dumps(
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [0] * 4}]}
    ).encode()
    with started("serve", "--models", tmp_path, "--max-batch", "1", "--lanes", "1") as running:
        process, _, url = running
        host, port = url.removeprefix("http://").split(":")
        request = b"POST /v2/models/slow/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(request % len(body) + body)
            while b"gearshift_busy_lanes 1.0" not in _get(f"{url}/metrics")[1]:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_serve_when_nothing_loads_says_so_and_stays(tmp_path: Path) -> None:
    write_three(tmp_path, fail_load=True)
    with started("serve", "--models", tmp_path) as (_, lines, url):
        assert lines[-1].startswith("not ready: ")
        assert "echo: 0 of 3 serve: nothing" in lines
        assert _get(f"{url}/readyz")[0] == 503


def test_demo_serves_a_finished_build_and_prints_three_requests(tmp_path: Path) -> None:
    write_three(tmp_path, "digits")
    sample = tmp_path / "digits" / "sample.json"
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [0.5] * 4}
    sample.write_text(json.dumps({"inputs": [tensor]}), encoding="utf-8")
    with started("demo", "--models", tmp_path) as (process, _, url):
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert f"{url}/" in rest
        commands = rest.replace("\\\n", " ").splitlines()
        commands = [line.strip() for line in commands if line.strip().startswith("curl ")]
    assert len(commands) == 3
    assert all(f"--data @{sample}" in command for command in commands)


def _card(folder: Path) -> VariantCard:
    return VariantCard.model_validate_json((folder / "card.json").read_bytes())
