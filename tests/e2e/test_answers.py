"""The response cache against a real server: what it saves, and what it never does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Server, until
from tests.e2e.problems import assert_problem
from tests.stores import write_variant


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    # Each tells itself by how often it ran: it fails from its third run with these inputs on.
    for variant, accuracy in (("fp32", 0.95), ("small", 0.90)):
        write_variant(models, "echo", variant, accuracy=accuracy, delay_ms=20, mirror=True)
    write_variant(models, "other", "fp32", mirror=True)
    with Server(models, response_cache_mb=1) as server:
        yield server


def ask(server: Server, value: float, model: str = "echo", **how: object):
    one = {"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [value, 0, 0, 0]}
    path = f"/v2/models/{model}/infer"
    return server.client.post(path, json={"inputs": [one]}, **how)


def test_the_second_answer_takes_no_batch_and_costs_nothing(server: Server) -> None:
    first = ask(server, 1)
    batches = server.batches()
    second = ask(server, 1)
    assert server.batches() == batches
    assert "gearshift-cache" not in first.headers
    assert second.headers["gearshift-cache"] == "hit"
    assert float(first.headers["gearshift-cost-usd-per-million"]) > 0
    assert float(second.headers["gearshift-cost-usd-per-million"]) == 0
    assert second.json() == first.json()
    assert second.headers["gearshift-variant"] == first.headers["gearshift-variant"]
    assert server.metric("gearshift_response_cache_total", model="echo", outcome="hit") == 1
    assert server.metric("gearshift_response_cache_bytes") > 0
    (fp32, _) = server.client.get("/v2/models/echo/stats").json()["model_stats"]
    counts = {name: each["count"] for name, each in fp32["inference_stats"].items()}
    assert (counts["success"], counts["cache_hit"], counts["cache_miss"]) == (2, 1, 1)
    assert counts["compute_infer"] == 1


def test_another_input_variant_or_model_is_another_answer(server: Server) -> None:
    ask(server, 2)
    pin = {"headers": {"Gearshift-Variant": "small"}}
    for answer in (ask(server, 3), ask(server, 2, **pin), ask(server, 2, model="other")):
        assert answer.status_code == 200
        assert "gearshift-cache" not in answer.headers
    assert ask(server, 2, **pin).headers["gearshift-variant"] == "small"
    assert ask(server, 3).json()["outputs"][0]["data"] == [3, 3, 3]


def test_binary_and_json_are_the_same_input(server: Server) -> None:
    ask(server, 5)
    response = server.client.post(
        "/v2/models/echo/infer",
        content=b"\0\0\xa0\x40" + bytes(12),
        headers={"Inference-Header-Content-Length": "0"},
    )
    assert response.headers["gearshift-cache"] == "hit"


def test_constraints_hold_as_ever(server: Server) -> None:
    ask(server, 6)
    response = ask(server, 6, headers={"Gearshift-Min-Accuracy": "0.999"})
    assert_problem(response, 422)
    response = ask(server, 6, headers={"Gearshift-Max-Latency-Ms": "0.001"})
    assert_problem(response, 422)


def test_a_replaced_build_starts_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32")
    with Server(models, response_cache_mb=1, watch_seconds=0.05) as server:
        assert ask(server, 1).json()["outputs"][0]["data"] == [0, 0, 0]
        assert ask(server, 1).headers["gearshift-cache"] == "hit"
        (models / "echo" / "fp32").rename(tmp_path_factory.mktemp("old") / "fp32")
        staged = tmp_path_factory.mktemp("new")
        write_variant(staged, "echo", "fp32", mirror=True).rename(models / "echo" / "fp32")
        until(
            lambda: ask(server, 1).json()["outputs"][0]["data"] == [1, 1, 1],
            "the new build answers",
        )
        assert ask(server, 1).headers["gearshift-cache"] == "hit"
        assert ask(server, 1).json()["outputs"][0]["data"] == [1, 1, 1]
