"""The console of several workers: a page that asks any of them is told of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gateway.processes.cores import usable_cores
from tests.e2e.harness import PATIENCE_S, Server, infer_body, until
from tests.stores import write_three


def workers(server: Server) -> list[psutil.Process]:
    """The processes that serve, by their numbers: they are started in that order."""
    children = psutil.Process(server.process.pid).children()
    found = [each for each in children if "gateway.cli.worker" in each.cmdline()]
    return sorted(found, key=lambda each: each.create_time())


@pytest.mark.skipif(usable_cores() < 2, reason="two workers need two cores")
def test_workers_tell_the_same_whichever_is_asked(tmp_path: Path) -> None:
    write_three(tmp_path)
    with Server(tmp_path, workers=2, lanes="") as server:  # type: ignore[arg-type]
        until(lambda: "\nready: http://" in server.log(), "all workers have settled")

        def each(path: str) -> dict[int, Any]:
            """What each of both workers tells, by which of them was asked."""
            found: dict[int, Any] = {}

            def both() -> bool:
                with httpx.Client(base_url=server.client.base_url) as client:
                    found[client.get("/console/state").json()["worker"]] = client.get(path).json()
                return len(found) == 2

            until(both, "both workers were asked")
            return found

        asked = 0
        while asked < 20:
            with httpx.Client(base_url=server.client.base_url, timeout=PATIENCE_S) as client:
                asked += client.post("/v2/models/echo/infer", json=infer_body()).is_success
        for told in each("/console/state").values():
            assert told["workers"] == 2 and told["silent"] == []
            assert {lane["worker"] for lane in told["lanes"]} == {0, 1}
            live = [v["live"] for v in told["models"][0]["variants"] if v["live"]]
            assert sum(one["answers"] for one in live) == 20
        first, second = each("/console/decisions").values()
        assert first["decisions"] == second["decisions"] and len(first["decisions"]) == 20
        for told in each("/console/history").values():
            assert sum(sum(one) for one in told["models"]["echo"]["variants"].values()) == 20
        # One that hangs is told, and keeps the page waiting for no longer than a second.
        with httpx.Client(base_url=server.client.base_url, timeout=PATIENCE_S) as client:
            own = client.get("/console/state").json()["worker"]
            other = workers(server)[1 - own]
            other.suspend()
            try:
                told = client.get("/console/state").json()
            finally:
                other.resume()
            assert (told["worker"], told["silent"]) == (own, [1 - own])
            assert told["status"]["tone"] == "wait"
            assert {lane["worker"] for lane in told["lanes"]} == {own}

            def good() -> bool:
                return client.get("/console/state").json()["status"]["tone"] == "good"

            until(good, "it answers again")
