"""What an answer's headers say, and that it is true; decisions without running; the default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import Server, infer_body
from tests.stores import write_variant

USD_PER_LANE_HOUR = 36.0
USD_PER_MILLION_LANE_MS = 10.0  # 36 USD per hour are 10 USD per million ms

LATENCY = "Gearshift-Max-Latency-Ms"
ACCURACY = "Gearshift-Min-Accuracy"
COST = "Gearshift-Max-Cost-Usd-Per-Million"
OPTIMIZE = "Gearshift-Optimize"
RELAX = "Gearshift-Relax"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As slow as their cards say: 40, 20 and 2 ms."""
    models = tmp_path_factory.mktemp("models")
    for name, accuracy, ms in (("fp32", 0.95, 40), ("int8", 0.93, 20), ("small", 0.90, 2)):
        write_variant(
            models,
            "echo",
            name,
            accuracy=accuracy,
            latency_ms_at_1=ms,
            latency_ms_at_32=4 * ms,
            delay_ms=ms,
        )
    return models


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with Server(models, max_batch=4, usd_per_lane_hour=USD_PER_LANE_HOUR) as server:
        yield server


def timings(response: httpx.Response) -> dict[str, float]:
    found = re.findall(r"(\w+);dur=([0-9.]+)", response.headers["server-timing"])
    return {name: float(ms) for name, ms in found}


@pytest.mark.parametrize(
    ("demands", "variant", "reason", "accuracy", "least_ms"),
    [
        ({}, "fp32", "most-accurate", 0.95, 40),
        ({LATENCY: "35"}, "int8", "most-accurate", 0.93, 20),
        ({ACCURACY: "0.91", OPTIMIZE: "cost"}, "int8", "cheapest", 0.93, 20),
        ({ACCURACY: "99%", OPTIMIZE: "latency"}, "fp32", "fastest", 0.95, 40),
        ({COST: "25"}, "small", "most-accurate", 0.9, 2),
        ({OPTIMIZE: "latency"}, "small", "fastest", 0.9, 2),
        ({"Gearshift-Variant": "int8"}, "int8", "pinned", 0.93, 20),
        ({"Gearshift-Variant": "reference"}, "fp32", "pinned", 0.95, 40),
        ({"grpc-timeout": "35m"}, "int8", "most-accurate", 0.93, 20),
        ({"x-envoy-expected-rq-timeout-ms": "35"}, "int8", "most-accurate", 0.93, 20),
        ({"grpc-timeout": "1S", LATENCY: "35"}, "int8", "most-accurate", 0.93, 20),
    ],
)  # fmt: skip
def test_every_header_says_what_ran(
    server: Server,
    demands: dict[str, str],
    variant: str,
    reason: str,
    accuracy: float,
    least_ms: float,
) -> None:
    before = server.batches(variant=variant)
    response = server.infer(headers=demands)
    assert response.status_code == 200
    assert server.batches(variant=variant) == before + 1
    said = response.headers
    assert said["gearshift-variant"] == variant
    assert response.json()["model_version"] == variant
    assert said["gearshift-reason"] == reason
    assert float(said["gearshift-accuracy"]) == accuracy
    assert "gearshift-relaxed" not in said
    took = timings(response)
    assert set(took) == {"parse", "queue", "infer"}
    assert took["infer"] >= least_ms
    assert least_ms <= float(said["gearshift-predicted-latency-ms"]) < 3 * least_ms + 10
    # Charged is the lane time that was used, and a cap holds even where the run was slower.
    cap = float(demands.get(COST, "inf"))
    charged = min(took["infer"] * USD_PER_MILLION_LANE_MS, cap)
    assert float(said["gearshift-cost-usd-per-million"]) == pytest.approx(charged, rel=1e-3)


def test_the_same_constraints_as_parameters(server: Server) -> None:
    response = server.infer(parameters={"max_latency_ms": 35, "min_accuracy": "95%"})
    assert response.json()["model_version"] == "int8"
    response = server.infer(parameters={"timeout": 35_000})
    assert response.json()["model_version"] == "int8"


def test_a_path_that_names_a_version_pins_it(server: Server) -> None:
    response = server.infer(version="small")
    assert (response.headers["gearshift-variant"], response.headers["gearshift-reason"]) == (
        "small",
        "pinned",
    )
    response = server.infer(version="small", headers={"Gearshift-Variant": "int8"})
    assert response.status_code == 400


def test_relaxed_only_when_something_gave_way(server: Server) -> None:
    demands = {LATENCY: "10", ACCURACY: "0.91"}
    assert server.infer(headers=demands).status_code == 422
    latency = server.infer(headers=demands | {RELAX: "latency,accuracy"})
    assert latency.status_code == 200
    assert latency.headers["gearshift-relaxed"] == "latency"
    assert latency.headers["gearshift-variant"] == "int8"
    assert latency.headers["gearshift-reason"] == "relaxed"
    accuracy = server.infer(headers=demands | {RELAX: "accuracy"})
    assert accuracy.headers["gearshift-relaxed"] == "accuracy"
    assert accuracy.headers["gearshift-variant"] == "small"
    unneeded = server.infer(headers={LATENCY: "500", RELAX: "latency"})
    assert "gearshift-relaxed" not in unneeded.headers


def test_explain_adds_the_whole_decision(server: Server) -> None:
    demands = {LATENCY: "35"}
    plain = server.infer(headers=demands).json()
    assert "parameters" not in plain
    explained = server.infer(headers=demands | {"Gearshift-Explain": "true"})
    decision = explained.json()["parameters"]["gearshift_decision"]
    assert decision["variant"] == explained.headers["gearshift-variant"] == "int8"
    assert decision["allowed"] == ["int8", "small"]
    (refusal,) = decision["refused"]
    assert (refusal["variant"], refusal["constraint"]) == ("fp32", "max_latency_ms")
    assert refusal["asked"] == 35
    assert refusal["offered"] > 35
    assert decision["why"]


def decide(server: Server, demands: dict[str, str], **body: Any) -> httpx.Response:
    return server.client.post("/v2/models/echo/decide", headers=demands, json=body or None)


def test_decide_decides_as_infer_does_and_runs_nothing(server: Server) -> None:
    before = server.batches()
    for demands, variant in (
        ({}, "fp32"),
        ({LATENCY: "35"}, "int8"),
        ({OPTIMIZE: "cost"}, "small"),
    ):
        for body in ({}, infer_body()):
            answer = decide(server, demands, **body)
            assert answer.status_code == 200
            assert answer.json()["verdict"] == "accepted"
            assert answer.json()["variant"] == variant
    # 32 rows take four times as long as one.
    assert decide(server, {LATENCY: "35"}, rows=32).json()["variant"] == "small"
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
            {"min_accuracy": 0.91, "max_cost_usd_per_million": 30},
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
    with Server(models, max_batch=4, default_max_latency_ms=35, default_optimize="cost") as server:
        assert server.infer().headers["gearshift-variant"] == "small"
        own = server.infer(headers={ACCURACY: "0.93", OPTIMIZE: "accuracy"})
        assert own.headers["gearshift-variant"] == "fp32"
        # Who says no objective has the operator's; a priority is no demand.
        assert server.infer(headers={ACCURACY: "0.91"}).headers["gearshift-variant"] == "int8"
        low = server.infer(headers={"Gearshift-Priority": "low"})
        assert low.headers["gearshift-variant"] == "small"
