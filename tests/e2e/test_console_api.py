"""The console's data on a real server: what it tells of requests, and no secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.e2e.console_calls import DATA, echo, latest, state, variants
from tests.e2e.harness import Server, infer_body, until
from tests.e2e.problems import assert_invalid
from tests.stores import write_honest, write_three, write_variant

SAMPLE = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}]}


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


def test_a_refusal_is_found_behind_any_number_of_answers(server: Server) -> None:
    assert server.infer(headers={"Gearshift-Min-Accuracy": "0.999"}).status_code == 422
    for _ in range(3):
        assert server.infer().is_success
    assert latest(server, model="echo")["outcome"] == "ok"
    assert latest(server, model="echo", outcome="unsatisfiable")["error"] is not None
    assert latest(server, outcome="ok")["error"] is None
    told = server.client.get("/console/decisions?model=echo&outcome=ok&limit=1").json()
    assert {"ok", "unsatisfiable"} <= set(told["outcomes"])


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
        ("/console/decisions?outcome=good", "outcome"),
    ],
)
def test_a_bad_question_is_told_so(server: Server, path: str, field: str) -> None:
    assert_invalid(server.client.get(path), field, path.partition("=")[2])


def test_data_is_never_kept_by_who_passes_it_on(server: Server) -> None:
    for path in DATA:
        answer = server.client.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"


def test_a_busy_lane_and_who_waits(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32", delay_ms=800)
    with Server(tmp_path, max_batch=1) as server, ThreadPoolExecutor(3) as callers:
        # Somebody waits for longer than the second between two looks at the queue.
        asked = [callers.submit(server.infer) for _ in range(3)]
        server.await_busy(queued=2)
        told = state(server)
        (lane,) = told["lanes"]
        assert [lane[key] for key in ("busy", "model", "variant", "rows")] == [
            True, "echo", "fp32", 1,
        ]  # fmt: skip
        assert told["queue"]["requests"] == 2 and told["queue"]["by_model"] == {"echo": 2}
        assert told["queue"]["oldest_ms"] > 0
        assert all(each.result().is_success for each in asked)
        until(lambda: not state(server)["lanes"][0]["busy"], "the lane is free")
        history = server.client.get("/console/history?minutes=1").json()
        assert max(history["queued"]) >= 1 and max(history["busy"]) > 0


@pytest.mark.parametrize("limit_ms", [None, 60_000])
def test_shed_requests_count_against_deadlines_where_they_have_one(
    tmp_path: Path, limit_ms: int | None
) -> None:
    write_honest(tmp_path)
    with Server(tmp_path, max_queue=1, max_batch=1) as server, ThreadPoolExecutor(32) as callers:
        demand = {"Gearshift-Variant": "fp32"}
        if limit_ms is not None:
            demand["Gearshift-Max-Latency-Ms"] = str(limit_ms)
        asked = [callers.submit(server.infer, headers=demand) for _ in range(200)]
        refused = sum(each.result().status_code == 429 for each in asked)
        history = server.client.get("/console/history?minutes=1").json()["models"]["echo"]
        assert refused > 0
        assert sum(history["failed"]["overloaded"]) == refused
        assert sum(history["variants"]["fp32"]) == 200 - refused
        assert sum(history["shed"]) == (0 if limit_ms is None else refused)
        assert sum(history["kept"]) == (0 if limit_ms is None else 200 - refused)
        metrics = server.client.get("/metrics").text
        counted = re.findall(r'deadlines_total\{.*outcome="shed".*\} (\d+)', metrics)
        assert sum(map(int, counted)) == sum(history["shed"])


def test_the_operators_default_is_a_deadline_too(server: Server) -> None:
    def kept() -> int:
        told = server.client.get("/console/history?minutes=1").json()["models"]
        return sum(told["echo"]["kept"]) if "echo" in told else 0

    before = kept()
    assert server.infer().is_success
    assert kept() == before + 1
    # Who demands anything at all has made up their own mind.
    assert server.infer(headers={"Gearshift-Variant": "fp32"}).is_success
    assert kept() == before + 1


def test_no_secret_and_no_payload_in_any_answer(server: Server) -> None:
    secret, client = "sesame-4711", server.client
    last = client.get("/console/decisions").json()["last"]
    url = "/v2/models/echo/infer"
    image = infer_body()["inputs"][0]
    bodies: list[dict[str, Any]] = [
        infer_body(id=secret),
        infer_body(parameters={"variant": secret}),
        infer_body(parameters={"variant": secret, "relax": "latency,accuracy"}),
        infer_body(parameters={"optimize": secret}),
        infer_body(parameters={secret: secret}),
        infer_body(**{secret: 1}),
        {"inputs": [image | {"name": secret}]},
        {"inputs": [image | {"datatype": secret}]},
        {"inputs": [image | {"data": [secret]}]},
        {"inputs": [image], "outputs": [{"name": secret}]},
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
    tensor = grpcclient.InferInput("image", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with grpcclient.InferenceServerClient(server.grpc_address) as calls:
        for said in ({"model_version": secret}, {"parameters": {"variant": secret}}):
            with pytest.raises(InferenceServerException):
                calls.infer("echo", [tensor], **said)
    told = client.get(f"/console/decisions?limit=500&since={last}").json()["decisions"]
    assert len(told) >= len(bodies) + 11
    # A variant that a caller made up: in a header, in parameters, in the path, over gRPC.
    made_up = [one for one in told if one["outcome"] == "unknown-variant"]
    assert len(made_up) == 6 and {one["protocol"] for one in made_up} == {"rest", "grpc"}
    assert {one["constraints"].get("variant") for one in made_up} == {"unknown", None}
    assert {"invalid-request", "unknown-model", "unknown-variant", "ok"} <= {
        each["outcome"] for each in told
    }
    for path in DATA:
        assert secret not in client.get(path).text, path
