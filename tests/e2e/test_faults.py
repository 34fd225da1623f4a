"""Faults, each in a real process: what breaks is answered by something else, and comes back."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import write_variant

_LOAD = 8
"""Clients that ask again as soon as they are answered."""


@pytest.fixture
def fault(tmp_path: Path) -> Path:
    """The file that makes `fp32` of the model `echo` faulty."""
    return tmp_path / "fault"


@pytest.fixture
def models(tmp_path: Path, fault: Path) -> Path:
    store = tmp_path / "models"
    for variant, accuracy, more in (("fp32", 0.95, {"fault_file": str(fault)}), ("int8", 0.94, {})):
        write_variant(
            store, "echo", variant, accuracy=accuracy, latency_ms_at_1=5, latency_ms_at_32=5,
            delay_ms=5, mirror=True, **more,
        )  # fmt: skip
    return store


def lane_processes(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "gateway.execution.lane_process" in child.cmdline()]


@contextmanager
def load(ask: Callable[[], httpx.Response]) -> Iterator[list[httpx.Response | Exception]]:
    """Clients that ask in turn until the block is left; yields what each got, as it comes."""
    answers: list[httpx.Response | Exception] = []
    going = True

    def client() -> None:
        while going:
            try:
                answers.append(ask())
            except httpx.TransportError as error:
                answers.append(error)

    with ThreadPoolExecutor(_LOAD) as pool:
        clients: list[Future[None]] = [pool.submit(client) for _ in range(_LOAD)]
        try:
            until(lambda: len(answers) >= 2 * _LOAD, "the load is on")
            yield answers
        finally:
            going = False
            for one in clients:
                one.result(PATIENCE_S)


def statuses(answers: list[httpx.Response | Exception]) -> set[int | str]:
    return {one.status_code if isinstance(one, httpx.Response) else repr(one) for one in answers}


def assert_each_has_one_outcome(server: Server, answers: list[httpx.Response | Exception]) -> None:
    """What the clients got is what the server counted, and nothing is left over."""
    server.await_idle()
    got = sum(isinstance(one, httpx.Response) for one in answers)
    assert server.metric("gearshift_requests_total") == got == len(answers)
    until(lambda: server.metric("gearshift_lost_lanes") == 0, "all lanes are back")


def test_lane_processes_killed_under_load_lose_no_request(models: Path) -> None:
    with Server(models, lanes=2, lane_kind="process", breaker_failures=100) as server:
        with load(server.infer) as answers:
            for number in range(3):
                lane_processes(server)[0].kill()
                until(
                    lambda n=number: (
                        server.metric("gearshift_lane_losses_total") > n
                        and server.metric("gearshift_lost_lanes") == 0
                    ),
                    "it is restored",
                )
        assert statuses(answers) == {200}
        assert_each_has_one_outcome(server, answers)
        # Each answered row ran to its end once, whatever was begun and lost.
        assert server.rows() == len(answers)
        assert len(lane_processes(server)) == 2


@pytest.mark.parametrize(
    ("lane", "kinds"),
    [("thread", ("raise", "nan", "shape", "hang")), ("process", ("hang", "exit"))],
)
def test_a_faulty_variant_is_left_alone_while_others_serve_and_comes_back(
    models: Path, fault: Path, lane: str, kinds: tuple[str, ...]
) -> None:
    settings = {"batch_timeout_seconds": 0.5, "breaker_seconds": 0.1}
    pin = {"Gearshift-Variant": "fp32"}

    def state() -> float:
        return server.metric("gearshift_breaker", model="echo", variant="fp32")

    def by_fp32(answers: list[httpx.Response | Exception]) -> bool:
        return any(
            isinstance(one, httpx.Response) and one.headers.get("gearshift-variant") == "fp32"
            for one in answers
        )

    with Server(models, lanes=2, lane_kind=lane, **settings) as server:
        pinned = []
        with load(server.infer) as answers:
            for kind in kinds:
                fault.write_text(kind, encoding="ascii")
                until(lambda: state() == 2, f"it is left alone: {kind}")
                pinned.append(server.infer(headers=pin))
                asked = len(answers)
                until(lambda n=asked: len(answers) > n + _LOAD, "others serve")
                fault.unlink()
                until(lambda: state() == 0, f"it is tried again, and serves: {kind}")
                asked = len(answers)
                until(lambda n=asked: by_fp32(answers[n:]), "it answers again")
        assert statuses(answers) == {200}
        reasons = {one.headers["gearshift-reason"] for one in answers}  # type: ignore[union-attr]
        assert "retried; run again on it after fp32 had failed" in reasons
        assert server.metric("gearshift_retries_total", variant="fp32") > 0
        for one in pinned:  # which may have been the one that tried it
            assert one.status_code in (500, 503)
            if one.status_code == 503:
                assert int(one.headers["retry-after"]) >= 1
        answers += pinned
        assert_each_has_one_outcome(server, answers)
        assert "Traceback" not in server.log()


def test_a_single_variant_that_fails_is_left_alone_as_well(models: Path, fault: Path) -> None:
    only = {"Gearshift-Variant": "fp32"}
    with Server(models, breaker_seconds=30) as server:
        fault.write_text("raise", encoding="ascii")
        for _ in range(3):
            failed = server.infer(headers=only)
            assert failed.status_code == 500
            assert failed.json()["code"] == "engine-failed"
            assert failed.json()["detail"] == "echo/fp32: echo fails, as fault asks"
        refused = server.infer(headers=only)
        assert refused.status_code == 503
        assert 25 <= int(refused.headers["retry-after"]) <= 30
        ready = server.client.get("/v2/models/echo/versions/fp32/ready")
        assert ready.status_code == 503
        assert "echo/fp32" in ready.json()["detail"]
        assert server.metric("gearshift_variant_ready", variant="fp32") == 0
        assert server.infer().headers["gearshift-variant"] == "int8"
        admin = re.search(r"^admin on (http://\S+)$", server.log(), re.MULTILINE)
        assert admin is not None
        told = httpx.get(f"{admin[1]}/admin/state").json()["lanes"]
        assert told == {"lanes": 1, "busy": 0, "lost": 0, "breakers": {"echo/fp32": "open"}}
        assert server.client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("lane", ["thread", "process"])
def test_sigterm_under_load_answers_all_that_came(models: Path, lane: str) -> None:
    with Server(models, lanes=2, lane_kind=lane) as server:
        with load(server.infer) as answers:
            processes = lane_processes(server)
            server.terminate()
            assert server.process.wait(PATIENCE_S) == 0
        before = [one for one in answers if isinstance(one, httpx.Response)]
        assert statuses(before) <= {200, 503}  # refused, once it was stopping
        assert before[0].status_code == 200
        broken = [one for one in answers if not isinstance(one, httpx.Response)]
        # Nothing was cut off: later ones found nobody to connect to, or a connection that was
        # closed before it took the request.
        assert not [one for one in broken if isinstance(one, httpx.ReadTimeout)]
        assert len(processes) == (2 if lane == "process" else 0)
        until(lambda: not [one for one in processes if one.is_running()], "they end with it")
        assert "Traceback" not in server.log()


def test_sigkill_under_load_leaves_nothing_behind_and_the_port_free(models: Path) -> None:
    with Server(models, lanes=2, lane_kind="process") as server:
        port = int(server.address.rpartition(":")[2])
        with load(server.infer) as answers:
            processes = lane_processes(server)
            server.process.kill()
            server.process.wait(PATIENCE_S)
            until(
                lambda: any(isinstance(one, httpx.TransportError) for one in answers),
                "its clients notice",
            )
        until(lambda: not [one for one in processes if one.is_running()], "they end with it")
        with Server(models, port=port) as again:
            assert again.address == server.address
            assert again.infer().status_code == 200
        server.process.returncode = 0  # as the harness expects of a server that it stops


@pytest.mark.parametrize("lane", ["thread", "process"])
def test_sigterm_while_a_variant_loads_ends_in_time(models: Path, fault: Path, lane: str) -> None:
    """Even where the engine hangs in it."""
    fault.write_text("hang", encoding="ascii")
    with Server(models, wait="/v2/health/live", lane_kind=lane, drain_seconds=1) as server:
        assert server.client.get("/v2/health/ready").status_code == 503
        processes = lane_processes(server)
        began_s = time.monotonic()
        server.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - began_s < PATIENCE_S / 2  # it hangs for ever
        assert "a variant is still being loaded" in server.log()
        until(lambda: not [one for one in processes if one.is_running()], "they end with it")


def test_threads_that_hang_for_good_end_the_process_s_life(models: Path, fault: Path) -> None:
    """What no new thread can mend is for whoever runs the process to end it."""
    with Server(models, batch_timeout_seconds=0.1, breaker_seconds=0.01, drain_seconds=0) as server:
        fault.write_text("hang", encoding="ascii")
        pin = {"Gearshift-Variant": "fp32"}

        def live() -> int:
            server.infer(headers=pin)
            return server.client.get("/v2/health/live").status_code

        until(lambda: live() == 503, "it is not live")
        assert server.client.get("/healthz").status_code == 503
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0


def test_a_lane_process_needs_no_checkout_to_start_from(models: Path, tmp_path: Path) -> None:
    """It imports what its gateway imports, whatever folder that was started in."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from gateway import hosts\n"
        "from router.card import VariantCard\n"
        "folder = Path(sys.argv[1])\n"
        "card = VariantCard.model_validate_json((folder / 'card.json').read_bytes())\n"
        "host = hosts.open_one('process', 0)\n"
        "print(host.load(folder, card, threads=1, trusted=False).kernels())\n"
        "host.close()\n"
    )
    root = str(Path(__file__).parents[2])
    finished = subprocess.run(
        [sys.executable, "-P", "-c", code, str(models / "echo" / "int8"), root],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
    )
    assert finished.stdout.strip() == "{'fp32': 1}", finished.stderr
