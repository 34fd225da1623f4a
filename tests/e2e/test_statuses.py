"""Every status of the product's table through REST and gRPC: the same words."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from gateway.rpc import problems
from router.card import TensorSpec
from router.errors import GearshiftError
from tests.e2e import statuses
from tests.e2e.gate import Gate
from tests.e2e.harness import Server, until
from tests.e2e.statuses import IMAGE, Ask
from tests.stores import IMAGE as IMAGE_SPEC
from tests.stores import write_three, write_variant

SLOW_MS = 600


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    count = TensorSpec(name="count", datatype="INT32", shape=(-1, 1))
    write_variant(models, "two", "fp32", inputs=(IMAGE_SPEC, count))
    write_variant(models, "broken", "fp32", fail_load=True)
    write_variant(models, "breaks", "fp32", fail_after=5)
    slow = {"latency_ms_at_1": SLOW_MS, "latency_ms_at_32": SLOW_MS}
    write_variant(models, "slow", "fp32", **slow, **gate.echo)
    for name in ("stalls", "stalls-too"):
        write_variant(models, name, "fp32", latency_ms_at_1=5, **gate.echo)
    # `broken` keeps the server from being ready.
    with Server(
        models, wait="/v2/models/slow/ready", grpc_port=0, max_batch=4, max_body_bytes=4096,
        max_queue=2,
    ) as server:  # fmt: skip
        until(
            lambda: all(
                server.client.get(f"/v2/models/{name}/ready").status_code == 200
                for name in ("echo", "two", "breaks", "stalls", "stalls-too")
            ),
            "every model that can be served is",
        )
        yield server


def changed(**changes: object) -> tuple[dict[str, object], ...]:
    return ({**IMAGE, **changes},)


TABLE = {
    "a floor that is no number": (400, Ask(headers={"Gearshift-Min-Accuracy": "high"})),
    "a floor out of range": (400, Ask(parameters={"min_accuracy": 1.5})),
    "a deadline that is negative": (400, Ask(parameters={"max_latency_ms": -1})),
    "a cost that is text": (400, Ask(parameters={"max_cost_usd_per_million": "free"})),
    "a header misspelt": (400, Ask(headers={"Gearshift-Min-Acuracy": "0.9"})),
    "a parameter misspelt": (400, Ask(parameters={"min_acuracy": 0.9, "sequence_id": 7})),
    "a priority there is not": (400, Ask(parameters={"priority": "urgent"})),
    "two pins": (400, Ask(version="fp32", parameters={"variant": "small"})),
    "two deadlines that disagree": (
        400,
        Ask(headers={"Gearshift-Max-Latency-Ms": "40"}, parameters={"max_latency_ms": 50}),
    ),
    "another datatype": (400, Ask(inputs=changed(datatype="FP64"))),
    "another shape": (400, Ask(inputs=changed(shape=[1, 5]))),
    "no rows": (400, Ask(inputs=changed(shape=[0, 4], data=[]))),
    "too few elements": (400, Ask(inputs=changed(data=[0.0, 1.0]))),
    "no elements": (400, Ask(inputs=changed(data=[]))),
    "an input there is not": (400, Ask(inputs=changed(name="picture"))),
    "an input twice": (400, Ask(inputs=(IMAGE, IMAGE))),
    "an input missing": (400, Ask(model="two")),
    "no inputs": (400, Ask(inputs=())),
    "inputs of other rows": (
        400,
        Ask(
            model="two",
            inputs=(
                IMAGE,
                {"name": "count", "datatype": "INT32", "shape": [2, 1], "data": [1, 2]},
            ),
        ),
    ),
    "an output there is not": (400, Ask(outputs=({"name": "odds"},))),
    "a model there is not": (404, Ask(model="absent")),
    "a variant there is not": (404, Ask(version="int4")),
    "a pin to none": (404, Ask(parameters={"variant": "int4"})),
    "a floor that nothing reaches": (422, Ask(parameters={"min_accuracy": 0.99})),
    "a cost that nothing keeps": (422, Ask(parameters={"max_cost_usd_per_million": 1e-9})),
    "a deadline that nothing keeps": (422, Ask(model="slow", parameters={"max_latency_ms": 1})),
    "a model that cannot be served": (503, Ask(model="broken")),
}


@pytest.mark.parametrize(("status", "ask"), TABLE.values(), ids=TABLE)
def test_the_same_words(server: Server, status: int, ask: Ask) -> None:
    rest = statuses.by_rest(server, ask)
    assert rest.problem["status"] == status
    rpc = statuses.by_grpc(server, ask)
    assert rpc.problem == statuses.as_grpc_says(rest.problem)
    assert rpc.retry_after == rest.retry_after


BY_PROTOCOL = pytest.mark.parametrize("ask_by", [statuses.by_rest, statuses.by_grpc])


@BY_PROTOCOL
def test_body_over_the_limit(server: Server, ask_by: object) -> None:
    rows = 2000
    ask = Ask(inputs=changed(shape=[rows, 4], data=[0.5] * (4 * rows)))
    problem = ask_by(server, ask).problem  # type: ignore[operator]
    assert (problem["status"], problem["code"], problem["retryable"]) == (413, "too-large", False)
    assert problem["detail"].startswith("body: expected at most 4096 bytes, got ")


def test_deadline_that_passes(server: Server, gate: Gate) -> None:
    """Each protocol asks a model of its own: the gateway learns that it stalls."""
    ask = Ask(parameters={"max_latency_ms": 1000})
    with gate.shut():
        rest = statuses.by_rest(server, replace(ask, model="stalls")).problem
    server.await_idle()
    with gate.shut():
        rpc = statuses.by_grpc(server, replace(ask, model="stalls-too")).problem
    assert rest["status"] == 504
    assert rpc == rest


@BY_PROTOCOL
def test_queue_that_is_full(server: Server, gate: Gate, ask_by: object) -> None:
    server.await_idle()
    with ThreadPoolExecutor() as pool, gate.shut():
        waiting = [pool.submit(server.infer, "slow")]
        server.await_busy()
        # Two wait at the most, and a tenth of the places is kept for who has priority.
        high = {"Gearshift-Priority": "high"}
        waiting += [pool.submit(server.infer, "slow", headers=high) for _ in range(2)]
        server.await_busy(queued=2)
        problem, retry_after, _ = ask_by(server, Ask(model="slow"))  # type: ignore[operator]
        assert (problem["status"], problem["code"]) == (429, "overloaded")
        assert problem["retryable"] and problem["retry_after_s"] > 0
        assert int(retry_after) >= 1
        gate.open()
        assert [one.result().status_code for one in waiting] == [200] * 3


def test_engine_that_fails(server: Server) -> None:
    rest = statuses.by_rest(server, Ask(model="breaks")).problem
    rpc = statuses.by_grpc(server, Ask(model="breaks")).problem
    assert rest["status"] == 500
    assert rpc == rest


def test_stopping(tmp_path: Path) -> None:
    """It says so, serves on for its notice, then takes nothing new and ends what it runs."""
    gate = Gate(tmp_path)
    write_variant(tmp_path / "models", "echo", "fp32", **gate.echo)
    with (
        Server(tmp_path / "models", grpc_port=0, max_batch=4, notice_seconds=3) as server,
        ThreadPoolExecutor() as pool,
        grpc.insecure_channel(server.grpc_address) as channel,
        gate.shut(),
    ):
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(pb.ServerReadyRequest()).ready
        server.terminate()
        until(lambda: not stub.ServerReady(pb.ServerReadyRequest()).ready, "it says it stops")
        running = []

        def refused() -> bool:
            running.append(pool.submit(stub.ModelInfer, statuses.message(Ask())))
            try:
                stub.ServerReady(pb.ServerReadyRequest())
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

        until(refused, "it takes nothing new")
        gate.open()
        assert running[0].result().model_version == "fp32"


def test_every_error_has_a_status() -> None:
    def family(kind: type[GearshiftError]) -> set[type[GearshiftError]]:
        return {kind}.union(*map(family, kind.__subclasses__()))

    assert problems.STATUSES.keys() == {
        kind for kind in family(GearshiftError) if kind.__module__ == "router.errors"
    }


def test_problem_that_is_too_long_for_metadata_keeps_its_words() -> None:
    error = GearshiftError("x" * 10_000, refused=["y" * 10_000])
    status = problems.of(error)
    assert len(status.details) == 1024
    assert sum(len(key) + len(value) for key, value in status.trailing) < 4096
