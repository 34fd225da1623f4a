"""What real traffic counts, through REST and gRPC, of one process and of several."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tritonclient import grpc

from gateway.metrics.declared import METRICS
from tests.e2e.harness import PATIENCE_S, Server, infer_body, until
from tests.needs import program
from tests.stores import write_honest, write_variant

OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
_MAX_BATCH = 4
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One lane, and a model whose variants take as long as their cards say."""
    models = tmp_path_factory.mktemp("models")
    write_honest(models)
    # Fifty times slower than its card says.
    write_variant(models, "boaster", "fp32", latency_ms_at_1=4, delay_ms=200)
    # Every size of batch is warmed up, and then it works no more.
    write_variant(models, "broken", "fp32", fail_after=_MAX_BATCH + 1)
    with Server(models, grpc_port=0, usd_per_lane_hour=36, max_batch=_MAX_BATCH) as started:
        yield started


class Counted:
    """How much a metric grows."""

    def __init__(self, server: Server, name: str, **labels: str) -> None:
        self._read = lambda: server.metric(f"gearshift_{name}", **labels)
        self._before = self._read()

    @property
    def more(self) -> float:
        """Since it was made."""
        return self._read() - self._before


def call_by_grpc(server: Server, **headers: str) -> None:
    tensor = grpc.InferInput("image", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.arange(4, dtype=np.float32)[None])
    with grpc.InferenceServerClient(server.grpc_address) as client:
        client.infer("echo", [tensor], headers={"gearshift-" + k: v for k, v in headers.items()})


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_an_answer_counts_in_every_way(server: Server, protocol: str) -> None:
    small = {"model": "echo", "variant": "small"}
    grown = {
        name: Counted(server, name, **labels)
        for name, labels in {
            "requests_total": {**small, "outcome": "ok", "reason": "most-accurate"},
            "deadlines_total": {"model": "echo", "outcome": "kept", "tenant": "open"},
            "accuracy_floors_total": {"model": "echo", "outcome": "kept"},
            "accuracy_credit_total": {"model": "echo", "timely": "true"},
            "predictions_total": small,
            "prediction_ratio_count": small,
            "infer_seconds_count": small,
            "queue_seconds_count": small,
            "overhead_seconds_count": {"model": "echo"},
            "batch_seconds_count": small,
            "charged_usd_total": {**small, "tenant": "open"},
            "reference_usd_total": {"model": "echo"},
            "lane_busy_seconds_total": {},
        }.items()
    }
    if protocol == "rest":
        answer = server.infer(
            headers={"Gearshift-Max-Latency-Ms": "50", "Gearshift-Min-Accuracy": "0.85"}
        )
        assert answer.status_code == 200, answer.text
    else:
        call_by_grpc(server, **{"max-latency-ms": "50", "min-accuracy": "0.85"})
    until(lambda: grown["batch_seconds_count"].more, "the batch is counted")
    for name, counted in grown.items():
        assert counted.more > 0, name
    assert grown["accuracy_credit_total"].more == pytest.approx(0.90)
    assert grown["lane_busy_seconds_total"].more >= 0.004
    # The reference takes fifty times as long by its card.
    saved = grown["reference_usd_total"].more / grown["charged_usd_total"].more
    assert saved == pytest.approx(50, rel=0.01)
    # 50 ms leave no time for the others on an idle machine either.
    assert server.metric("gearshift_shifts_total", model="echo") == 0


def test_overload_shifts_sheds_and_queues(server: Server) -> None:
    shifted = Counted(server, "shifts_total", model="echo", source="fp32")
    shed = Counted(server, "deadlines_total", model="echo", outcome="shed", tenant="open")
    refused = Counted(
        server, "requests_total", model="echo", outcome="overloaded", reason="overloaded"
    )
    missed = Counted(server, "constraint_misses_total", constraint="max_latency_ms")

    def ask(headers: dict[str, str]) -> httpx.Response:
        return httpx.post(
            f"http://{server.address}/v2/models/echo/infer",
            json=infer_body(),
            headers=headers,
            timeout=PATIENCE_S,
        )

    with ThreadPoolExecutor(64) as pool:
        # Pinned to what takes 200 ms, so that a queue grows behind the first.
        asked = [pool.submit(ask, {"Gearshift-Variant": "fp32"}) for _ in range(8)]
        until(lambda: server.metric("gearshift_busy_lanes") > 0, "the lane is busy")
        # More than fp32 can answer in time, but not than the others can.
        asked += [pool.submit(ask, {"Gearshift-Max-Latency-Ms": "1500"}) for _ in range(48)]
        for name, least in (("queued_requests", 1), ("queue_age_seconds", 0.01)):
            until(
                lambda name=name, least=least: (
                    server.metric(f"gearshift_{name}", model="echo") >= least
                ),
                name,
            )
        assert server.metric("gearshift_queued_requests", model="broken") == 0
        asked += [pool.submit(ask, {"Gearshift-Max-Latency-Ms": "6"}) for _ in range(4)]
        answers = [each.result() for each in asked]
        statuses = [answer.status_code for answer in answers]
    assert statuses.count(429) == shed.more == refused.more > 0
    assert missed.more > 0
    told = Counter(
        (answer.status_code, answer.headers.get("gearshift-reason")) for answer in answers
    )
    assert shifted.more > 0, dict(told)
    server.await_idle()
    assert server.metric("gearshift_queue_age_seconds", model="echo") == 0


def test_what_is_relaxed(server: Server) -> None:
    relaxed = Counted(server, "deadlines_total", model="echo", outcome="relaxed")
    below = Counted(server, "accuracy_floors_total", model="echo", outcome="relaxed")
    late = Counted(server, "accuracy_credit_total", model="echo", timely="false")
    headers = {"Gearshift-Max-Latency-Ms": "1", "Gearshift-Relax": "latency"}
    assert server.infer(headers=headers).status_code == 200
    assert relaxed.more == 1
    assert late.more == pytest.approx(0.90)
    headers = {"Gearshift-Min-Accuracy": "0.99", "Gearshift-Relax": "accuracy"}
    assert server.infer(headers=headers).status_code == 200
    assert below.more == 1


def test_a_promise_that_ends_in_a_missed_deadline_is_counted_as_broken(server: Server) -> None:
    whose = {"model": "boaster"}
    missed = Counted(server, "deadlines_total", **whose, outcome="missed", tenant="open")
    broken = Counted(server, "predictions_total", **whose, variant="fp32", outcome="exceeded")
    answer = server.infer("boaster", headers={"Gearshift-Max-Latency-Ms": "100"})
    assert answer.status_code == 504
    assert missed.more == broken.more == 1


def test_a_variant_that_fails_opens_its_breaker(server: Server) -> None:
    whose = {"model": "broken", "variant": "fp32"}

    def opens() -> bool:
        server.infer("broken")
        return server.metric("gearshift_breaker", **whose) == 2

    until(opens, "the breaker opens")
    assert server.metric("gearshift_variant_ready", **whose) == 0
    assert server.metric("gearshift_batch_failures_total", **whose) > 0


def test_cards_and_builds_are_shown(server: Server) -> None:
    whose = {"model": "echo", "variant": "int8"}
    assert server.metric("gearshift_card_accuracy", **whose, bound="point") == 0.93
    assert server.metric("gearshift_card_latency_seconds", **whose, quantile="0.5") == 0.06
    assert server.metric("gearshift_reference_accuracy", model="echo") == 0.95
    assert server.metric("gearshift_variant_info", **whose, engine="echo", recipe="none") == 1
    assert server.metric("gearshift_promised_percentile") == 0.99


def test_an_exemplar_leads_to_the_trace(server: Server) -> None:
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    assert server.infer(headers=headers).status_code == 200
    text = server.client.get("/metrics", headers=OPENMETRICS).text
    traced = [
        sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar
    ]
    assert TRACE in traced
    assert TRACE not in server.client.get("/metrics").text


def test_prometheus_finds_nothing_wrong_with_any_of_it(server: Server) -> None:
    """`promtool check metrics` reads the whole exposition and lints names, types and labels."""
    promtool = program("promtool", "prometheus")
    text = server.client.get("/metrics").text
    assert all(f"# TYPE {declared.full_name} " in text for declared in METRICS)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not checked.stderr.strip()


def test_workers_are_told_apart_and_keep_their_exemplars(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    with Server(tmp_path, workers=2) as server:
        for _ in range(8):
            assert httpx.post(
                f"http://{server.address}/v2/models/echo/infer", json=infer_body(), headers=headers
            ).is_success
        # On a busy machine a scrape may not wait for the other worker.
        until(
            lambda: server.metric("gearshift_requests_total", model="echo", outcome="ok") == 8,
            "both workers tell what they answered",
        )
        for number in ("0", "1"):
            whose = {"worker": number, "model": "echo", "variant": "fp32", "bound": "point"}
            until(
                lambda whose=whose: server.metric("gearshift_card_accuracy", **whose) == 0.95,
                f"worker {number} shows its cards",
            )
        until(
            lambda: TRACE in server.client.get("/metrics", headers=OPENMETRICS).text,
            "exemplars of all workers are shown",
        )


def test_a_tenant_is_a_label(tmp_path: Path) -> None:
    write_variant(tmp_path / "models", "echo", "fp32")
    with Server(tmp_path / "models", grpc_port=0) as server:
        made = httpx.post(
            f"{server.admin_url}/admin/keys",
            content=json.dumps({"name": "acme", "tenant": "gold", "scopes": ["infer", "read"]}),
        ).json()
        bearer = {"Authorization": f"Bearer {made['key']}"}
        server.client.headers.update(bearer)
        assert server.infer().status_code == 200
        assert (
            httpx.post(
                f"http://{server.address}/v2/models/echo/infer", json=infer_body()
            ).status_code
            == 401
        )
        tensor = grpc.InferInput("image", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.arange(4, dtype=np.float32)[None])
        with grpc.InferenceServerClient(server.grpc_address) as client:
            client.infer("echo", [tensor], headers={"authorization": bearer["Authorization"]})
        ok = {"model": "echo", "outcome": "ok"}
        assert server.metric("gearshift_requests_total", **ok, tenant="gold") == 2
        assert server.metric("gearshift_requests_total", **ok) == 2
        assert server.metric("gearshift_requests_total", outcome="unauthorized", tenant="none") == 1
        assert server.metric("gearshift_charged_usd_total", model="echo", tenant="gold") > 0
