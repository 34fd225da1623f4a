"""What an answer's headers say, and that it is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import Server
from tests.stores import write_honest, write_variant

USD_PER_LANE_HOUR = 36.0
USD_PER_MILLION_LANE_MS = 10.0  # 36 USD per hour are 10 USD per million ms

FAR_MS = 20_000
DEADLINE_MS = 10_000

LATENCY = "Gearshift-Max-Latency-Ms"
ACCURACY = "Gearshift-Min-Accuracy"
COST = "Gearshift-Max-Cost-Usd-Per-Million"
OPTIMIZE = "Gearshift-Optimize"
RELAX = "Gearshift-Relax"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_honest(models)
    # Of its two, the one is out of the question and never run, however busy the machine is.
    write_variant(
        models, "far", "fp32", accuracy=0.95, latency_ms_at_1=FAR_MS, latency_ms_at_32=FAR_MS
    )
    write_variant(
        models, "far", "int8", accuracy=0.93, delay_ms=60, latency_ms_at_1=60, latency_ms_at_32=240
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
    ("model", "demands", "variant", "reason", "accuracy", "least_ms"),
    [
        ("echo", {}, "fp32", "most-accurate", 0.95, 200),
        ("far", {LATENCY: "10000"}, "int8", "most-accurate", 0.93, 60),
        ("far", {ACCURACY: "0.91", OPTIMIZE: "cost"}, "int8", "cheapest", 0.93, 60),
        ("echo", {ACCURACY: "99%", OPTIMIZE: "latency"}, "fp32", "fastest", 0.95, 200),
        ("echo", {COST: "500"}, "small", "most-accurate", 0.9, 4),
        ("far", {OPTIMIZE: "latency"}, "int8", "fastest", 0.93, 60),
        ("echo", {"Gearshift-Variant": "int8"}, "int8", "pinned", 0.93, 60),
        ("echo", {"Gearshift-Variant": "reference"}, "fp32", "pinned", 0.95, 200),
        ("far", {"grpc-timeout": "10000m"}, "int8", "most-accurate", 0.93, 60),
        ("far", {"x-envoy-expected-rq-timeout-ms": "10000"}, "int8", "most-accurate", 0.93, 60),
        ("far", {"grpc-timeout": "60S", LATENCY: "10000"}, "int8", "most-accurate", 0.93, 60),
    ],
)  # fmt: skip
def test_every_header_says_what_ran(
    server: Server,
    model: str,
    demands: dict[str, str],
    variant: str,
    reason: str,
    accuracy: float,
    least_ms: float,
) -> None:
    before = server.batches(model=model, variant=variant)
    response = server.infer(model, headers={**demands, "Gearshift-Explain": "true"})
    assert response.status_code == 200
    assert server.batches(model=model, variant=variant) == before + 1
    said = response.headers
    assert said["gearshift-variant"] == variant
    assert response.json()["model_version"] == variant
    assert said["gearshift-reason"].startswith(f"{reason}; ")
    assert float(said["gearshift-accuracy"]) == accuracy
    assert "gearshift-relaxed" not in said
    took = timings(response)
    assert set(took) == {"parse", "queue", "infer"}
    assert took["infer"] >= least_ms
    # What was foreseen when it was decided: of the size that this variant takes, which the server
    # learns from this machine, and within any deadline.
    foreseen_ms = float(said["gearshift-predicted-latency-ms"])
    decision = response.json()["parameters"]["gearshift_decision"]
    assert foreseen_ms == decision["predicted_latency_ms"]
    assert least_ms / 2 <= foreseen_ms <= DEADLINE_MS
    # Charged is the lane time that was used, and a cap holds even where the run was slower.
    cap = float(demands.get(COST, "inf"))
    charged = min(took["infer"] * USD_PER_MILLION_LANE_MS, cap)
    assert float(said["gearshift-cost-usd-per-million"]) == pytest.approx(charged, rel=1e-3)


def test_the_same_constraints_as_parameters(server: Server) -> None:
    response = server.infer(parameters={"max_latency_ms": 150, "min_accuracy": "95%"})
    assert response.json()["model_version"] == "int8"
    response = server.infer(parameters={"timeout": 150_000})
    assert response.json()["model_version"] == "int8"


def test_a_path_that_names_a_version_pins_it(server: Server) -> None:
    response = server.infer(version="small")
    assert response.headers["gearshift-variant"] == "small"
    assert response.headers["gearshift-reason"] == "pinned; small is pinned by the request"
    response = server.infer(version="small", headers={"Gearshift-Variant": "int8"})
    assert response.status_code == 400


def test_relaxed_only_when_something_gave_way(server: Server) -> None:
    demands = {LATENCY: "40", ACCURACY: "0.91"}
    assert server.infer(headers=demands).status_code == 422
    latency = server.infer(headers=demands | {RELAX: "latency,accuracy"})
    assert latency.status_code == 200
    assert latency.headers["gearshift-relaxed"] == "latency"
    assert latency.headers["gearshift-variant"] == "int8"
    assert latency.headers["gearshift-reason"].startswith("relaxed; nothing met every constraint")
    accuracy = server.infer(headers=demands | {RELAX: "accuracy"})
    assert accuracy.headers["gearshift-relaxed"] == "accuracy"
    assert accuracy.headers["gearshift-variant"] == "small"
    unneeded = server.infer(headers={LATENCY: "500", RELAX: "latency"})
    assert "gearshift-relaxed" not in unneeded.headers


def test_explain_adds_the_whole_decision(server: Server) -> None:
    demands = {LATENCY: "150"}
    plain = server.infer(headers=demands).json()
    assert "parameters" not in plain
    explained = server.infer(headers=demands | {"Gearshift-Explain": "true"})
    decision = explained.json()["parameters"]["gearshift_decision"]
    assert decision["variant"] == explained.headers["gearshift-variant"] == "int8"
    assert decision["allowed"] == ["int8", "small"]
    (refusal,) = decision["refused"]
    assert (refusal["variant"], refusal["constraint"]) == ("fp32", "max_latency_ms")
    assert refusal["asked"] == 150
    assert refusal["offered"] > 150
    assert decision["why"]
