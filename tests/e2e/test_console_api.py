"""The console's API on a real server: data, files, keys, operators, workers, and no secrets."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
from starlette.testclient import TestClient
from typer.testing import CliRunner

from gateway.app import create_app
from gateway.cli import app
from gateway.processes.cores import usable_cores
from gateway.settings import Settings
from tests.e2e.harness import PATIENCE_S, Server, infer_body, until
from tests.e2e.problems import assert_invalid, assert_problem
from tests.stores import write_honest, write_three, write_variant

DATA = ("/console/state", "/console/history", "/console/decisions")
SAMPLE = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}]}


def state(server: Server) -> Any:
    answer = server.client.get("/console/state")
    assert answer.status_code == 200, answer.text
    return answer.json()


def echo(server: Server) -> Any:
    (model,) = [model for model in state(server)["models"] if model["name"] == "echo"]
    return model


def variants(server: Server) -> dict[str, Any]:
    return {variant["name"]: variant for variant in echo(server)["variants"]}


def latest(server: Server, **which: Any) -> Any:
    answer = server.client.get("/console/decisions", params={"limit": 1, **which})
    assert answer.status_code == 200, answer.text
    return answer.json()["decisions"][0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models, labels=("cat", "dog", "cow"))
    write_variant(models, "echo", "refuses", accuracy=0.5, fail_load=True)
    (write_variant(models, "echo", "changed") / "echo.json").write_text("{} ", encoding="utf-8")
    (models / "echo" / "sample.json").write_text(json.dumps(SAMPLE), encoding="utf-8")
    with Server(models, grpc_port=0, default_max_latency_ms=5000) as server:
        yield server


def test_state_says_what_is_served_and_how_good_it_is(server: Server) -> None:
    told = state(server)
    assert told["status"] == {"tone": "good", "text": "Ready: 3 of 5 variants serve"}
    assert told["charts"] and told["admin"] and not told["needs_key"]
    assert [told[key] for key in ("worker", "workers", "silent")] == [0, 1, []]
    assert told["lanes"] == [
        {"worker": 0, "lane": 0, "busy": False, "lost": False}
        | dict.fromkeys(("model", "variant", "rows"))
    ]
    assert told["queue"] == {"requests": 0, "oldest_ms": 0.0, "by_model": {}}
    assert told["left_out"][0].startswith("echo/changed: echo.json has digest")
    model = told["models"][0]
    assert model["sample"] == SAMPLE and model["labels"] == ["cat", "dog", "cow"]
    assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 4]}]
    assert model["default_constraints"] == {
        "max_latency_ms": 5000.0,
        "optimize": "accuracy",
    }
    assert (model["reference"], model["metric"], model["samples"]) == ("fp32", "accuracy", 1000)
    names = [variant["name"] for variant in model["variants"]]
    assert names == ["fp32", "int8", "small", "refuses", "changed"]
    int8, refuses, changed = (model["variants"][at] for at in (1, 3, 4))
    assert (int8["accuracy"], int8["p50_ms"], int8["state"]) == (0.94, 1.0, "ready")
    assert int8["accuracy_low"] < 0.94 < int8["accuracy_high"]
    assert int8["cost_usd_per_million"] > 0
    assert int8["card"]["machine"]["cpu"] == "a test's"
    assert refuses["state"] == "failed" and "echo refuses to load" in refuses["why"]
    assert changed["card"] is None and changed["accuracy"] is None


def test_the_sample_is_a_request_that_is_answered(server: Server) -> None:
    assert server.client.post("/v2/models/echo/infer", json=echo(server)["sample"]).is_success


def test_a_decision_is_told_with_what_was_asked(server: Server) -> None:
    headers = {"Gearshift-Max-Latency-Ms": "2000", "Gearshift-Min-Accuracy": "98%"}
    headers["Gearshift-Optimize"] = "cost"
    answer = server.infer(headers=headers)
    told = latest(server)
    assert told["constraints"] == {
        "max_latency_ms": 2000.0,
        "min_accuracy": "98%",
        "optimize": "cost",
    }
    assert told["variant"] == answer.headers["Gearshift-Variant"] == "int8"
    assert answer.headers["Gearshift-Reason"] == f"{told['reason']}; {told['why']}"
    assert {each["variant"]: each["constraint"] for each in told["refused"]} == {
        "small": "min_accuracy",
        "refuses": "min_accuracy",
    }
    assert (told["tenant"], told["protocol"], told["outcome"]) == ("open", "rest", "ok")
    assert told["latency_ms"] > 0 and told["predicted_ms"] <= 2000


def test_a_refusal_is_told_with_who_refused(server: Server) -> None:
    last = server.client.get("/console/decisions").json()["last"]
    assert server.infer(headers={"Gearshift-Min-Accuracy": "0.999"}).status_code == 422
    found = server.client.get("/console/decisions", params={"since": last}).json()
    (told,) = found["decisions"]
    assert told["error"]["code"] == told["outcome"] == "unsatisfiable"
    assert {each["constraint"] for each in told["refused"]} == {"min_accuracy"}
    later = server.client.get("/console/decisions", params={"since": found["last"]}).json()
    assert later["decisions"] == [] and later["last"] > found["last"]


def test_grpc_calls_are_told_too(server: Server) -> None:
    tensor = grpcclient.InferInput("image", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with grpcclient.InferenceServerClient(server.grpc_address) as client:
        client.infer("echo", [tensor], parameters={"optimize": "latency"})
    assert latest(server)["protocol"] == "grpc"
    assert latest(server)["constraints"] == {"optimize": "latency"}


def test_history_and_live_figures_follow_traffic(server: Server) -> None:
    for _ in range(5):
        assert server.infer(headers={"Gearshift-Variant": "small"}).is_success
    assert server.infer(headers={"Gearshift-Max-Latency-Ms": "0.001"}).status_code == 422
    live = variants(server)["small"]["live"]
    assert live["answers"] >= 5 and 0 < live["p50_ms"] <= live["p99_ms"]
    told = server.client.get("/console/history", params={"minutes": 2}).json()
    assert told["step_s"] == 5 and len(told["queued"]) == len(told["busy"]) == 24
    model = told["models"]["echo"]
    assert sum(model["variants"]["small"]) >= 5
    assert sum(model["failed"]["unsatisfiable"]) >= 1
    assert any(model["p99_ms"])


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/console/history?minutes=0", "minutes"),
        ("/console/history?minutes=x", "minutes"),
        ("/console/decisions?since=-1", "since"),
        ("/console/decisions?limit=1.5", "limit"),
        ("/console/decisions?model=nothing", "model"),
    ],
)
def test_a_bad_question_is_told_so(server: Server, path: str, field: str) -> None:
    assert_invalid(server.client.get(path), field, path.partition("=")[2])


def test_the_page_and_its_files_lead_nowhere_else(server: Server) -> None:
    page = server.client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    for path in ("/console/charts.js", "/console/charts.css", "/console/main.js"):
        file = server.client.get(path, headers={"accept-encoding": "identity"})
        assert file.status_code == 200 and file.headers["x-content-type-options"] == "nosniff"
        assert "javascript" in file.headers["content-type"] or path.endswith("css")
        asked = {"if-none-match": file.headers["etag"]}
        again = server.client.get(path, headers=asked)
        assert again.status_code == 304 and not again.content
        zipped = {"accept-encoding": "gzip"}
        with server.client.stream("GET", path, headers=zipped) as answer:
            raw = b"".join(answer.iter_raw())
        if "content-encoding" in answer.headers:
            raw = gzip.decompress(raw)
        assert raw == file.content


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2fstate.py", "../files.py", "x.js", "%00.js"])
def test_no_file_but_the_pages_own(server: Server, name: str) -> None:
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as raw:
        head = (
            f"GET /console/{name} HTTP/1.1\r\nHost: {server.address}\r\nConnection: close\r\n\r\n"
        )
        raw.sendall(head.encode())
        assert raw.makefile("rb").readline().split()[1] in (b"404", b"400")


def test_data_is_never_kept_by_who_passes_it_on(server: Server) -> None:
    for path in DATA:
        answer = server.client.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"


def test_a_busy_lane_and_who_waits(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32", delay_ms=800)
    with Server(tmp_path, max_batch=1) as server, ThreadPoolExecutor(2) as callers:
        asked = [callers.submit(server.infer) for _ in range(2)]
        server.await_busy(queued=1)
        told = state(server)
        (lane,) = told["lanes"]
        assert [lane[key] for key in ("busy", "model", "variant", "rows")] == [
            True, "echo", "fp32", 1,
        ]  # fmt: skip
        assert told["queue"]["requests"] == 1 and told["queue"]["by_model"] == {"echo": 1}
        assert told["queue"]["oldest_ms"] > 0
        assert all(each.result().is_success for each in asked)
        until(lambda: not state(server)["lanes"][0]["busy"], "the lane is free")
        history = server.client.get("/console/history?minutes=1").json()
        assert max(history["queued"]) >= 1 and max(history["busy"]) > 0


def test_requests_that_are_shed_are_counted_however_they_are_refused(tmp_path: Path) -> None:
    write_honest(tmp_path)
    with Server(tmp_path, max_queue=1, max_batch=1) as server, ThreadPoolExecutor(32) as callers:
        demand = {"Gearshift-Variant": "fp32"}
        asked = [callers.submit(server.infer, headers=demand) for _ in range(200)]
        refused = sum(each.result().status_code == 429 for each in asked)
        history = server.client.get("/console/history?minutes=1").json()["models"]["echo"]
        assert refused > 0
        assert sum(history["shed"]) == sum(history["failed"]["overloaded"]) == refused
        assert sum(history["variants"]["fp32"]) == 200 - refused


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    made = CliRunner().invoke(
        app, ["keys", "create", "root", "--models", str(models), "--scope", "admin", "--json"]
    )
    assert made.exit_code == 0, made.output
    with Server(models) as server:
        server.root = json.loads(made.stdout)["key"]  # type: ignore[attr-defined]
        yield server


@pytest.fixture(scope="module")
def keys(keyed: Server) -> dict[str, str]:
    """A key for each scope."""
    found = {"admin": keyed.root}  # type: ignore[attr-defined]
    for scope in ("infer", "read"):
        body = {"name": scope, "scopes": [scope], "tenant": "gold"}
        url = f"{keyed.admin_url}/admin/keys"
        made = httpx.post(url, json=body, headers={"Authorization": f"Bearer {found['admin']}"})
        found[scope] = made.json()["key"]
    return found


def ask(keyed: Server, path: str, key: str, method: str = "GET") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return keyed.client.request(method, path, headers=headers)


def test_the_page_needs_no_key_and_its_data_do(keyed: Server, keys: dict[str, str]) -> None:
    for path in ("/", "/console/charts.js", "/console/main.js", "/console/icon.svg"):
        assert ask(keyed, path, "").status_code == 200, path
    for path in DATA:
        assert_problem(ask(keyed, path, ""), 401)
        assert_problem(ask(keyed, path, keys["infer"]), 403)
        assert ask(keyed, path, keys["read"]).status_code == 200


def test_who_may_administrate(keyed: Server, keys: dict[str, str]) -> None:
    path = "/console/admin/models/echo/variants/int8/disable"
    assert_problem(ask(keyed, path, "", "POST"), 401)
    assert_problem(ask(keyed, path, keys["read"], "POST"), 403)
    told = {name: ask(keyed, "/console/state", keys[name]).json() for name in ("read", "admin")}
    assert [told[name]["admin"] for name in ("read", "admin")] == [False, True]
    assert told["read"]["needs_key"]
    assert ask(keyed, path, keys["admin"], "POST").status_code == 200


def test_a_request_is_told_with_its_tenant(keyed: Server, keys: dict[str, str]) -> None:
    assert keyed.infer(headers={"Authorization": f"Bearer {keys['infer']}"}).is_success
    told = ask(keyed, "/console/decisions?limit=1", keys["read"]).json()
    assert told["decisions"][0]["tenant"] == "gold"


def operate(server: Server, method: str, path: str, **body: Any) -> httpx.Response:
    content = json.dumps(body) if body else None
    return server.client.request(method, f"/console/admin{path}", content=content)


def test_what_an_operator_changes_is_shown(server: Server) -> None:
    path = "/models/echo/variants/int8"
    assert operate(server, "POST", path + "/canary", share=0.25).is_success
    assert variants(server)["int8"]["canary_weight"] == 0.25
    assert operate(server, "POST", path + "/shadow", share=0.5).is_success
    shadow = variants(server)["int8"]
    assert (shadow["state"], shadow["shadow_share"]) == ("shadow", 0.5)
    assert operate(server, "POST", path + "/disable").is_success
    assert variants(server)["int8"]["state"] == "disabled"
    assert operate(server, "POST", path + "/enable").is_success
    assert variants(server)["int8"]["state"] == "ready"
    assert operate(server, "PUT", "/models/echo/pin", variant="small").is_success
    assert echo(server)["pinned"] == "small"
    assert operate(server, "DELETE", "/models/echo/pin").is_success
    assert operate(server, "PUT", "/models/echo/aliases/best", variant="fp32").is_success
    assert echo(server)["aliases"] == {"best": "fp32"}
    assert operate(server, "DELETE", "/models/echo/aliases/best").is_success
    assert_problem(operate(server, "POST", path + "/canary", share=2), 400)
    assert_problem(operate(server, "POST", "/models/echo/variants/none/enable"), 404)


def test_other_sites_change_nothing(server: Server) -> None:
    path = "/console/admin/models/echo/variants/int8/disable"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert_problem(server.client.post(path, headers=headers), 403)
    assert variants(server)["int8"]["state"] == "ready"


@pytest.mark.parametrize("kept", ["read-only", "off"])
def test_the_setting_leaves_out_what_it_says(
    tmp_path: Path, kept: Literal["read-only", "off"]
) -> None:
    write_variant(tmp_path, "echo", "fp32")
    chosen = Settings(
        models=tmp_path, lanes=1, drain_seconds=0, admin_port="off", grpc_port="off", console=kept
    )
    with TestClient(create_app(chosen), base_url="http://127.0.0.1:8080") as client:
        path = "/console/admin/models/echo/variants/fp32/disable"
        assert_problem(client.post(path), 404)
        expected = 200 if kept == "read-only" else 404
        paths = ("/", "/console/main.js", "/console/charts.js", *DATA)
        assert [client.get(path).status_code for path in paths] == [expected] * len(paths)
        if kept == "read-only":
            assert not client.get("/console/state").json()["admin"]


def test_no_secret_and_no_payload_in_any_answer(server: Server) -> None:
    secret, client = "sesame-4711", server.client
    last = client.get("/console/decisions").json()["last"]
    url = "/v2/models/echo/infer"
    tensor = infer_body()["inputs"][0]
    bodies: list[dict[str, Any]] = [
        infer_body(id=secret),
        infer_body(parameters={"optimize": secret}),
        infer_body(parameters={secret: secret}),
        infer_body(**{secret: 1}),
        {"inputs": [tensor | {"name": secret}]},
        {"inputs": [tensor | {"datatype": secret}]},
        {"inputs": [tensor | {"data": [secret]}]},
        {"inputs": [tensor], "outputs": [{"name": secret}]},
    ]
    for body in bodies:
        client.post(url, json=body)
    client.post(url, content=secret)
    client.post(f"/v2/models/{secret}/infer", json=infer_body())
    client.post(f"/v2/models/echo/versions/{secret}/infer", json=infer_body())
    client.post(f"{url}?key={secret}", json=infer_body())
    for name in (
        "Authorization", "X-Request-Id", "Gearshift-Variant", "Gearshift-Min-Accuracy",
        f"Gearshift-{secret}", "Cookie", "traceparent", "Content-Encoding",
    ):  # fmt: skip
        client.post(url, json=infer_body(), headers={name: secret})
    told = client.get(f"/console/decisions?limit=500&since={last}").json()["decisions"]
    assert len(told) >= len(bodies) + 9
    assert {"invalid-request", "unknown-model", "unknown-variant", "ok"} <= {
        each["outcome"] for each in told
    }
    for path in DATA:
        assert secret not in client.get(path).text, path


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
