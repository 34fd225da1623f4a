"""The drills, short: `make fuzz`, `make soak`, `make overload` and `make idle` run them whole."""

from __future__ import annotations

import ast
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gateway.http.accepting import several
from tests.drills import clients, idle, overload
from tests.drills.fuzz import fuzz
from tests.drills.openloop import LOST, UNSENT, post, replay
from tests.drills.soak import soak
from tests.e2e.gate import Gate
from tests.e2e.harness import Server, infer_body, until
from tests.stores import write_three, write_variant

ROOT = Path(__file__).parents[2]


def test_fuzz() -> None:
    tallies = fuzz(2500, seed=7)
    assert {kind: tally.faults for kind, tally in tallies.items() if tally.faults} == {}
    assert sum(tally.cases for tally in tallies.values()) >= 2400
    # Chance has not broken everything: answers are among what came of it.
    assert tallies["rest"].outcomes["200"] and tallies["grpc"].outcomes["OK"]


def test_soak() -> None:
    wrong, seen = soak(4, every_s=0.3, told=False, lane_kind="process")
    assert wrong == []
    assert sum(seen.disturbed.values()) >= 3


def test_overload(tmp_path: Path) -> None:
    overload.store(tmp_path)
    capacity = overload.MAX_BATCH / min(ms for *_, ms in overload.VARIANTS) * 1000
    with Server(tmp_path, lanes=1, max_batch=overload.MAX_BATCH) as server:
        host, port = server.address.split(":")
        address, kinds = (host, int(port)), overload.demand()
        hot = replay(address, kinds, per_second=8 * capacity, seconds=3, connections=2000)
        # In the first second the connections are made, and the scheduler learns.
        figures = overload.report(hot.since(1.0), 2)
        assert set(np.unique(hot.status)) <= {200, 429, 504}, "none lost, none unsent"
        assert figures.refused > figures.offered / 2
        # Room for a busy machine: lanes oversleep, and the loop waits for a processor.
        assert figures.late <= 0.2 * figures.in_time + 10
        assert figures.goodput_per_s > 0.4 * capacity
        after = replay(address, kinds, per_second=0.3 * capacity, seconds=3)
        assert not {LOST, UNSENT} & set(after.status)
        assert (after.status[after.due_s > overload.RECOVERED_WITHIN_S] == 200).all()
        server.await_idle()
        refused = server.metric("gearshift_requests_total", outcome="overloaded")
        assert refused == (hot.status == 429).sum() + (after.status == 429).sum()
        assert server.metric("gearshift_shed_total") > refused / 4


class Raw:
    """A connection that sends bytes as they are, and reads whole answers."""

    def __init__(self, server: Server) -> None:
        host, port = server.address.split(":")
        self.connection = socket.create_connection((host, int(port)), timeout=30)

    def ask(self, message: bytes) -> tuple[int, bytes]:
        self.connection.sendall(message)
        come = b""
        while b"\r\n\r\n" not in come:
            come += self.connection.recv(1 << 16)
        head, _, body = come.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self.connection.recv(1 << 16)
        return int(head[9:12]), body


def test_a_refusal_that_stands_refuses_only_who_asks_the_same(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32", latency_ms_at_1=4000, latency_ms_at_32=4000, **gate.echo)
    hurry = {"Gearshift-Max-Latency-Ms": "6000"}
    path = "/v2/models/echo/infer"
    body = json.dumps(infer_body()).encode()
    relaxed = json.dumps(infer_body(parameters={"relax": "latency"})).encode()
    with Server(models, max_batch=1) as server, ThreadPoolExecutor() as pool:
        with gate.shut():
            waiting = []
            for number in range(4):
                waiting.append(pool.submit(server.infer))
                server.await_busy(queued=number)
            raw = Raw(server)
            first = raw.ask(post(path, body, hurry))
            assert first[0] == 429
            decided = server.metric("gearshift_decisions_total", reason="overloaded")
            again = [raw.ask(post(path, body, hurry)) for _ in range(200)]
            assert {status for status, _ in again} == {429}
            assert json.loads(again[0][1])["code"] == "overloaded"
            # The same head, then other bodies of the same length: one is bad, and may be refused
            # unread; one demands something else, and is not.
            spaced = body.ljust(max(len(body), len(relaxed)))
            assert raw.ask(post(path, spaced, hurry))[0] == 429
            message = post(path, relaxed.ljust(len(spaced)), hurry)
            assert (
                message.partition(b"\r\n\r\n")[0]
                == (post(path, spaced, hurry).partition(b"\r\n\r\n")[0])
            )
            staying = pool.submit(Raw(server).ask, message)
            server.await_busy(queued=4)
        assert staying.result()[0] == 200
        assert [one.result().status_code for one in waiting] == [200] * 4
        shed = server.metric("gearshift_shed_total")
        refused = server.metric("gearshift_requests_total", outcome="overloaded")
        decisions = server.metric("gearshift_decisions_total", reason="overloaded")
        assert refused == 202
        assert shed + decisions == refused and shed > 50 and decisions >= decided
        # When the lane is free, so is the way.
        server.await_idle()
        assert raw.ask(post(path, body, hurry))[0] == 200


def test_who_leaves_in_the_head_or_the_answer(tmp_path: Path) -> None:
    write_three(tmp_path, model=clients.LEAVING)
    write_three(tmp_path)
    with Server(tmp_path) as server:
        body = json.dumps(infer_body(50)).encode()
        message = post(f"/v2/models/{clients.LEAVING}/infer", body, {})
        for at in (1, 9, len(message) - len(body) - 1, len(message)):
            for _ in range(20):
                raw = Raw(server)
                raw.connection.sendall(message[:at])
                raw.connection.close()
        assert server.infer().status_code == 200
        server.await_idle()
        # Who left in the head never was a request.
        until(
            lambda: server.metric("gearshift_requests_total", model=clients.LEAVING) <= 20,
            "those who left are counted once at most",
        )
        assert "Traceback" not in server.log()


def test_idle_connections_harm_nobody(tmp_path: Path) -> None:
    write_three(tmp_path)
    with (
        Server(tmp_path) as server,
        idle.connections(server.address, idle.possible(1500)) as made,
    ):
        assert [server.infer().status_code for _ in range(20)] == [200] * 20
        assert idle.closed(made) == 0


def test_a_listener_is_several_for_the_loop() -> None:
    """libuv accepts one connection of each in a turn."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        them = several(listener)
        assert len({one.fileno() for one in them}) == 16
        assert {one.getsockname() for one in them} == {listener.getsockname()}
        for one in them:
            one.close()


# Where the wall clock may be read: for the day of a budget, to tell people when it was, and for the
# age of a store's copy, which processes share whose other clocks do not compare.
WALL_CLOCK = {
    "trust/access", "logs/access", "metrics/families", "console/decisions", "console/gathering",
    "tracing/tracer", "statistics", "store/sync",
}  # fmt: skip


def test_the_wall_clock_decides_nothing() -> None:
    read = set()
    for path in [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "router").rglob("*.py")]:
        if path.is_relative_to(ROOT / "gateway" / "cli"):
            continue
        top = "gateway" if path.is_relative_to(ROOT / "gateway") else "router"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                named = f"{node.value.id}.{node.attr}"
                if named in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow"):
                    read.add(str(path.relative_to(ROOT / top).with_suffix("")))
    assert read == WALL_CLOCK


def test_a_clock_that_is_stepped_while_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step"
    patch = tmp_path / "patched"
    patch.mkdir()
    # Loaded by every Python process that finds it: the wall clock jumps to and fro by a day.
    (patch / "sitecustomize.py").write_text(
        "import os, time\n"
        "real = time.time\n"
        f"def stepped():\n    return real() - 86400.0 * os.path.exists({str(step)!r})\n"
        "time.time = stepped\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(patch))
    models = tmp_path / "models"
    write_three(models, delay_ms=2)
    hurry = {"Gearshift-Max-Latency-Ms": "5000"}
    with Server(models) as server:
        for number in range(8):
            if number % 2:
                step.touch()
            else:
                step.unlink(missing_ok=True)
            answers = [server.infer(headers=hurry) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200] * 5
            assert all("dur=-" not in answer.headers["server-timing"] for answer in answers)
        assert server.metric("gearshift_deadlines_total", outcome="kept") == 40
        assert server.metric("gearshift_request_seconds_sum") < 40 * 5
