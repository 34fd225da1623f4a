"""Decisions without running, values that a refusal suggests, and the operator's default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import Server, infer_body
from tests.stores import write_honest

LATENCY = "Gearshift-Max-Latency-Ms"
ACCURACY = "Gearshift-Min-Accuracy"
OPTIMIZE = "Gearshift-Optimize"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_honest(models)
    return models


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with Server(models, max_batch=4, usd_per_lane_hour=36) as server:  # 10 USD per million ms
        yield server


def decide(server: Server, demands: dict[str, str], **body: Any) -> httpx.Response:
    return server.client.post("/v2/models/echo/decide", headers=demands, json=body or None)


def test_decide_decides_as_infer_does_and_runs_nothing(server: Server) -> None:
    before = server.batches()
    for demands, variant in (
        ({}, "fp32"),
        ({LATENCY: "150"}, "int8"),
        ({OPTIMIZE: "cost"}, "small"),
    ):
        for body in ({}, infer_body()):
            answer = decide(server, demands, **body)
            assert answer.status_code == 200
            assert answer.json()["verdict"] == "accepted"
            assert answer.json()["variant"] == variant
    # 32 rows take four times as long as one.
    assert decide(server, {LATENCY: "150"}, rows=32).json()["variant"] == "small"
    assert decide(server, {ACCURACY: "1"}).json()["verdict"] == "unsatisfiable"
    assert decide(server, {"Gearshift-Variant": "absent"}).status_code == 404
    assert server.batches() == before


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ({"max_latency_ms": 0.6, "optimize": "accuracy"}, {"max_latency_ms"}),
        ({"min_accuracy": 0.999}, {"min_accuracy"}),
        ({"min_accuracy": "100%", "max_latency_ms": 30}, {"min_accuracy", "max_latency_ms"}),
        ({"max_cost_usd_per_million": 0.001}, {"max_cost_usd_per_million"}),
        (
            {"min_accuracy": 0.91, "max_cost_usd_per_million": 50},
            {"min_accuracy", "max_cost_usd_per_million"},
        ),
    ],
)  # fmt: skip
def test_the_nearest_value_of_a_422_is_accepted(
    server: Server, asked: dict[str, Any], nearest: set[str]
) -> None:
    refused = server.infer(parameters=asked)
    problem = refused.json()
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["code"]) == (422, "unsatisfiable")
    assert problem["error"] == problem["detail"]
    assert {refusal["variant"] for refusal in problem["refused"]} == {"fp32", "int8", "small"}
    assert set(problem["nearest"]) == nearest
    for name, value in problem["nearest"].items():
        assert name in problem["detail"]
        changed = asked | {name: value}
        assert decide(server, {}, parameters=changed).json()["verdict"] == "accepted"
        # A deadline that is just met by prediction may be missed by the machine's noise.
        if "max_latency_ms" not in changed:
            assert server.infer(parameters=changed).status_code == 200


def test_default_policy_is_for_those_that_ask_for_nothing(models: Path) -> None:
    with Server(models, max_batch=4, default_max_latency_ms=150, default_optimize="cost") as server:
        assert server.infer().headers["gearshift-variant"] == "small"
        own = server.infer(headers={ACCURACY: "0.93", OPTIMIZE: "accuracy"})
        assert own.headers["gearshift-variant"] == "fp32"
        # Who says no objective has the operator's; a priority is no demand.
        assert server.infer(headers={ACCURACY: "0.91"}).headers["gearshift-variant"] == "int8"
        low = server.infer(headers={"Gearshift-Priority": "low"})
        assert low.headers["gearshift-variant"] == "small"
