"""The benchmark's own parts: forms, ratios and tables, pages, and whose time a stack is."""

from __future__ import annotations

import importlib
import json
import pkgutil
import struct
from pathlib import Path

import pytest

from tests.bench import pages
from tests.bench.load import Figures
from tests.bench.peers import apps, environments, network, report, servers
from tests.bench.peers.contract import CLASSES, PIXELS, Peer, json_logits, v2_binary, v2_logits
from tests.bench.peers.measure import Cell, Turn, picture
from tests.bench.profile import parts
from tests.bench.replay import Replayed

_NAMES = sorted(module.name for module in pkgutil.iter_modules(servers.__path__))
PEERS: dict[str, Peer] = {
    name: importlib.import_module(f"{servers.__name__}.{name}").PEER for name in _NAMES
}


@pytest.mark.parametrize("name", _NAMES)
def test_every_peer_is_pinned_and_asks_for_the_same_row(name: str) -> None:
    peer, row = PEERS[name], picture()
    assert all("==" in requirement for requirement in peer.requirements)
    assert set(peer.forms) == {"json", "binary"}
    sent = json.loads(peer.forms["json"].ask(row).body)
    flat = json.dumps(sent).replace("[", " ").replace("]", " ").replace(",", " ").split()
    values = [float(word) for word in flat if word[0].isdigit() and "." in word]
    assert values == pytest.approx(list(struct.unpack(f"<{PIXELS}f", row)), abs=1e-6)
    assert len(peer.forms["binary"].ask(row).body) < len(peer.forms["json"].ask(row).body)


def test_every_peer_but_ours_has_an_app() -> None:
    there = {module.name for module in pkgutil.iter_modules(apps.__path__)}
    assert there == {name for name, peer in PEERS.items() if peer.requirements}


def test_answers_are_read_in_every_form() -> None:
    logits = [float(number) for number in range(CLASSES)]
    document = json.dumps({"outputs": [{"data": logits}]}).encode()
    assert list(v2_logits({}, document)) == logits
    head = b'{"outputs":[{}]}'
    raw = head + struct.pack(f"<{CLASSES}f", *logits)
    assert list(v2_logits({"inference-header-content-length": str(len(head))}, raw)) == logits
    assert json_logits({}, json.dumps([logits]).encode()) == logits
    assert json_logits({}, json.dumps(logits).encode()) == logits


def test_a_binary_request_is_head_and_row() -> None:
    row = picture()
    ask = v2_binary("/x", "image", "logits")(row)
    length = int(ask.headers["Inference-Header-Content-Length"])
    tensor = json.loads(ask.body[:length])["inputs"][0]
    assert ask.body[length:] == row
    assert tensor["parameters"]["binary_data_size"] == len(row) == 4 * PIXELS


def test_the_graph_computes_what_the_weights_say(tmp_path: Path) -> None:
    import numpy as np

    network.write(tmp_path)
    row = picture()
    found = network.load(tmp_path)(np.frombuffer(row, np.float32).reshape(1, -1))
    assert list(found[0]) == pytest.approx(network.expected(tmp_path, row), abs=1e-4)


def _turn(rate: float, one_ms: float, open_ms: float, errors: int = 0) -> Turn:
    many = Figures(rate, 1.0, 2.0, errors)
    replayed = Replayed(rate / 2, 1.0, open_ms, open_ms, 0.1, 0.2, 0, 4)
    return Turn({"json": Cell(many, Figures(100, one_ms, 2.0, 0), replayed)}, 100.0)


def _target(words: str) -> report.Target:
    return next(target for target in report._TARGETS if words in target.says)


def test_ratios_are_to_the_best_peer_of_the_same_round() -> None:
    turns = {
        "Gearshift": [_turn(600, 1.0, 5.0), _turn(900, 1.0, 5.0)],
        "A": [_turn(100, 4.0, 10.0), _turn(300, 8.0, 20.0)],
        "B": [_turn(200, 2.0, 40.0), _turn(100, 4.0, 40.0)],
    }
    assert report.ratios(turns, "Gearshift", _target("JSON")) == [3.0, 3.0]
    assert report.ratios(turns, "Gearshift", _target("one connection")) == [0.5, 0.25]
    assert report.ratios(turns, "Gearshift", _target("p99")) == [0.5, 0.25]
    assert report.ratios(turns, "Gearshift", _target("binary")) == []


def test_a_peer_that_refuses_or_fails_is_no_measure() -> None:
    turns = {
        "Gearshift": [_turn(600, 1.0, 5.0)],
        "A": [_turn(5000, 0.1, 0.1, errors=4000)],
        "B": [_turn(200, 4.0, 20.0)],
        "C": [Turn({}, 0.0, "it ended\nwith a long log")],
    }
    assert report.ratios(turns, "Gearshift", _target("JSON")) == [3.0]
    told = report.tables(
        [PEERS["gearshift"]],
        {**turns, "Gearshift": turns["Gearshift"]},
        [Replayed(100, 1, 2, 3, 0.1, 0.2, 0, 4)],
    )
    assert "| requests/s, 32 connections, JSON | ≥ 3 | 3.00 [3.00, 3.00] met |" in told
    assert "C, round 1: failed: it ended" in told
    assert "long log" not in told


def test_an_environment_is_free_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEARSHIFT_LANES", "7")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    found = environments.environment(PEERS["rayserve"])
    assert "GEARSHIFT_LANES" not in found
    assert "RAY_ADDRESS" not in found
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert found["OMP_NUM_THREADS"] == "1"


def test_a_page_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    pages.write(page, "make this", "first")
    page.write_text("# Before\n\n" + page.read_text() + "\nafter\n")
    pages.write(page, "make that", "other")
    pages.write(page, "make this", "second")
    told = page.read_text()
    assert told.startswith("# Before")
    assert "first" not in told
    assert told.index("second") < told.index("after") < told.index("other")
    assert told.count("written by make this") == 1


def test_a_stack_belongs_to_its_innermost_known_part() -> None:
    assert (
        parts.part_of(["serve (gateway/cli/serve.py:3)", "decode (gateway/wire/v2.py:9)"])
        == "decode"
    )
    assert parts.part_of(["infer (gateway/http/infer.py:3)", "loads (json/x.py:9)"]) == "decode"
    assert parts.part_of(["run (asyncio/runners.py:3)"]) == parts.OTHER
    lanes = "gateway/execution/lanes.py"
    raw = (
        "thread (1): MainThread;run (uvloop/x.py:1) 3\n"
        "thread (1): MainThread;route (router/route.py:1) 4\n"
        f"thread (2): lane-0;_take ({lanes}:9);Condition.wait (threading.py:3) 9\n"
        f"thread (2): lane-0;_serve ({lanes}:1);infer (gateway/engines/echo.py:2) 5\n"
    )
    found = parts.by_thread(raw)
    assert found[parts.LOOP] == {parts.LOOP: 3, "decide": 4}
    assert found["lanes"] == {"engine": 5}


def test_every_file_of_a_part_exists() -> None:
    """A file that was moved would silently count as something else."""
    for part, files in parts.PARTS.items():
        ours = [name for name in files if name.startswith(("gateway/", "router/"))]
        there = [name for name in ours if list(Path().glob(f"{name}*"))]
        assert there or not ours, part
