"""Several workers behind one port: cores, series, faults, and both ways to end them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.processes.cores import usable_cores
from tests.e2e.harness import PATIENCE_S, Server, infer_body, until
from tests.stores import write_variant

pytestmark = pytest.mark.skipif(usable_cores() < 2, reason="two workers need two cores")

PATH = "/v2/models/echo/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32")
    with Server(models, workers=2, lanes="") as server:  # type: ignore[arg-type]
        until(lambda: "\nready: http://" in server.log(), "all workers have settled")
        yield server


def workers(server: Server) -> list[psutil.Process]:
    """The processes that serve, in the order in which they were started."""
    children = psutil.Process(server.process.pid).children()
    return sorted(
        (each for each in children if "gateway.cli.worker" in each.cmdline()),
        key=lambda each: each.create_time(),
    )


def ask(server: Server, times: int) -> list[int]:
    """The statuses of requests on a new connection each, so that the system spreads them."""
    statuses = []
    for _ in range(times):
        with httpx.Client(base_url=server.client.base_url, timeout=PATIENCE_S) as client:
            statuses.append(client.post(PATH, json=infer_body()).status_code)
    return statuses


def restarts(server: Server) -> float:
    """How often a worker was started again, as far as one that lives can be asked."""
    try:
        return server.metric("gearshift_worker_restarts_total")
    except httpx.TransportError:  # the connection was kept to the one that died
        return 0


def test_each_worker_has_cores_of_its_own_and_a_lane_for_each(server: Server) -> None:
    masks = [os.sched_getaffinity(each.pid) for each in workers(server)]
    assert len(masks) == 2
    assert not masks[0] & masks[1]
    assert masks[0] | masks[1] == os.sched_getaffinity(0)
    lanes = [float(len(mask)) for mask in masks]
    # One may answer before it has met the other.
    until(
        lambda: lanes == [server.metric("gearshift_lanes", worker=str(n)) for n in range(2)],
        "either shows the lanes of both",
    )


def test_any_worker_shows_the_series_of_all(server: Server) -> None:
    before = server.metric("gearshift_requests_total", outcome="ok")
    assert set(ask(server, 32)) == {200}
    # Asked on new connections: whichever worker answers tells the same.
    for _ in range(8):
        with httpx.Client(base_url=server.client.base_url) as client:
            server.client, kept = client, server.client
            try:
                assert server.metric("gearshift_requests_total", outcome="ok") == before + 32
                assert server.metric("gearshift_worker_up", worker="0") == 1
                assert server.metric("gearshift_worker_up", worker="1") == 1
            finally:
                server.client = kept
    # 1 in 2**31 that the system gives all to one.
    for number in ("0", "1"):
        assert server.metric("gearshift_requests_total", outcome="ok", worker=number) > 0


def test_series_of_all_in_the_other_format_too(server: Server) -> None:
    kind = "application/openmetrics-text; version=1.0.0"
    answer = server.client.get("/metrics", headers={"accept": kind})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert 'gearshift_worker_up{worker="1"} 1.0' in answer.text
    assert answer.text.endswith("# EOF\n")


def test_what_is_the_same_of_every_worker_is_said_once(server: Server) -> None:
    lines = server.log().splitlines()
    assert len(lines) == len(set(lines))
    assert lines[-1] == f"ready: http://{server.address}/"


def test_a_worker_that_hangs_is_shown_as_down_and_keeps_no_scrape_waiting(server: Server) -> None:
    stuck = workers(server)[1]
    stuck.send_signal(signal.SIGSTOP)
    try:
        with socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))):
            pass
        with ThreadPoolExecutor(8) as pool:
            # Connections that the system gives to the worker that hangs wait; some reach the other.
            scrapes = [
                pool.submit(httpx.get, f"http://{server.address}/metrics", timeout=PATIENCE_S)
                for _ in range(8)
            ]
            done = until(
                lambda: [each for each in scrapes if each.done()], "one scrape is answered"
            )
            assert 'gearshift_worker_up{worker="1"} 0.0' in done[0].result().text
            stuck.send_signal(signal.SIGCONT)
    finally:
        stuck.send_signal(signal.SIGCONT)


def test_a_worker_that_is_killed_comes_back_and_nobody_meets_it_before_it_serves(
    tmp_path: Path,
) -> None:
    # A second of warm-up, in which it would answer 503.
    write_variant(tmp_path, "echo", "fp32", delay_ms=250)
    with Server(tmp_path, workers=2, max_batch=4) as server:
        until(lambda: "\nready: http://" in server.log(), "all workers have settled")
        victim = workers(server)[0]
        statuses: list[int] = []
        over = threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                # One that the dead worker held is lost, as its connection is.
                try:
                    statuses.extend(ask(server, 1))
                except httpx.TransportError:
                    statuses.append(0)

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(keep_asking) for _ in range(2)]
            try:
                until(lambda: len(statuses) > 2, "requests are answered")
                victim.kill()
                until(lambda: restarts(server) == 1, "it takes requests again")
                here = len(statuses)
                until(lambda: len(statuses) > here + 8, "requests are answered")
            finally:
                over.set()
            for each in asking:
                each.result()
        assert set(statuses) <= {0, 200}
        assert statuses.count(0) <= 2  # one for each of the two that ask
        assert len(workers(server)) == 2
        assert "worker 0 ended (SIGKILL); it starts again in 0.1 s" in server.log()


def test_stop_answers_what_every_worker_was_asked_and_leaves_nothing(tmp_path: Path) -> None:
    write_variant(
        tmp_path, "echo", "fp32", delay_ms=1000, delay_after=2, latency_ms_at_1=1000,
        latency_ms_at_32=1000,
    )  # fmt: skip
    with Server(tmp_path, workers=2, max_batch=1) as server:
        until(lambda: "\nready: http://" in server.log(), "all workers have settled")
        pids = [each.pid for each in workers(server)]
        folder = f"gearshift-{server.process.pid}-"
        assert list(Path(tempfile.gettempdir()).glob(folder + "*"))
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(ask, server, 1) for _ in range(4)]
            until(
                lambda: (
                    server.metric("gearshift_busy_lanes")
                    + server.metric("gearshift_queued_requests")
                    == 4
                ),
                "all have been accepted",
            )
            server.terminate()
            assert [each.result() for each in running] == [[200]] * 4
        assert server.process.wait(PATIENCE_S) == 0
        assert server.log().rstrip().endswith("stopped")
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert not list(Path(tempfile.gettempdir()).glob(folder + "*"))


def test_workers_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with Server(tmp_path, workers=2) as server:
        until(lambda: "\nready: http://" in server.log(), "all workers have settled")
        left = workers(server)
        folder = f"gearshift-{server.process.pid}-"
        server.process.kill()
        gone, alive = psutil.wait_procs(left, timeout=PATIENCE_S)
        assert (len(gone), alive) == (2, [])
        assert not list(Path(tempfile.gettempdir()).glob(folder + "*"))
        assert "Traceback" not in server.log()
        server.process.wait()
        server.process.returncode = 0


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "serve", "--workers", "2", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_what_keeps_every_worker_from_starting_is_said_once(tmp_path: Path) -> None:
    ended = serve("--models", str(tmp_path / "none"), "--port", "0")
    assert ended.returncode == 1
    assert ended.stderr.count("error:") == 1


def test_a_port_in_use_is_told_though_it_could_be_shared(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = serve("--models", str(tmp_path), "--port", str(port))
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_more_workers_than_cores_are_refused(tmp_path: Path) -> None:
    many = str(usable_cores() + 1)
    ended = serve("--models", str(tmp_path), "--port", "0", "--workers", many)
    assert ended.returncode == 2
    assert f"workers: expected at most {usable_cores()}" in ended.stderr
    assert f"got {many}" in ended.stderr


def test_a_reload_reaches_every_worker(server: Server) -> None:
    server.process.send_signal(signal.SIGHUP)
    for number in (0, 1):
        until(
            lambda number=number: any(  # type: ignore[misc]
                f"worker-{number} " in line and "settings read again" in line
                for line in server.log().splitlines()
            ),
            "it has read its settings again",
        )


def test_a_reload_by_the_admin_port_reaches_every_worker(server: Server) -> None:
    def read_again() -> list[int]:
        lines = [line for line in server.log().splitlines() if "settings read again" in line]
        return [sum(f"worker-{number} " in line for line in lines) for number in (0, 1)]

    before = sum(read_again())
    url = server.admin_url + "/admin/settings/reload"
    assert httpx.post(url, timeout=PATIENCE_S).json()["other_workers_told"] == 1
    # The one that answered tells the caller, the other one the log.
    until(lambda: sum(read_again()) == before + 1, "the other has read its settings again")


def test_one_that_is_asked_to_end_drains_and_is_replaced(server: Server) -> None:
    before = workers(server)
    before[1].terminate()
    until(lambda: restarts(server) == 1, "its place is filled again")
    assert "WARNING gateway.processes.workers: worker 1 was told to end" in server.log()
    assert "ERROR gateway.processes.workers: worker 1" not in server.log()
    now = workers(server)
    assert now[0] == before[0] and now[1] != before[1]
    assert os.sched_getaffinity(now[1].pid).isdisjoint(os.sched_getaffinity(now[0].pid))
    assert set(ask(server, 8)) == {200}
