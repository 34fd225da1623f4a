"""API keys through REST and gRPC: the same words, and a stream is no way around a key's limits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from gateway.trust import keys as api_keys
from gateway.trust.ledger import Ledger
from tests.e2e import statuses
from tests.e2e.harness import Server
from tests.e2e.statuses import Ask
from tests.stores import write_three

ONE_AT_FIRST = {"requests_per_second": 0.001, "burst": 1}
POOR = {"budget_usd_per_day": 1e-12}


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, str]) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    ledger = Ledger(None, models / ".gearshift", "test")
    limits: dict[str, dict[str, Any]] = {
        "infers": {},
        "reads": {"scopes": ["read"]},
        **dict.fromkeys(("rated-rest", "rated-grpc", "rated-stream"), ONE_AT_FIRST),
        **dict.fromkeys(("poor-rest", "poor-grpc"), POOR),
    }
    for name, how in limits.items():
        asked = api_keys.wanted({"name": name, "scopes": ["infer"], **how})
        key, keys[name] = api_keys.create(asked, datetime.now(UTC))
        ledger.insert(key)
    ledger.close()
    with Server(models, grpc_port=0, max_batch=4) as server:
        yield server


def bearing(key: str) -> Ask:
    return Ask(headers={"Authorization": f"Bearer {key}"})


@pytest.mark.parametrize(
    ("status", "ask"),
    [
        (401, lambda _: Ask()),
        (401, lambda _: Ask(headers={"Authorization": "Basic eDp5"})),
        (401, lambda _: bearing("gs_made_up")),
        (403, lambda keys: bearing(keys["reads"])),
    ],
)
def test_who_may_not_is_told_the_same(
    server: Server, keys: dict[str, str], status: int, ask: Any
) -> None:
    rest = statuses.by_rest(server, ask(keys)).problem
    assert rest["status"] == status
    assert statuses.by_grpc(server, ask(keys)).problem == rest


@pytest.mark.parametrize(("kind", "code"), [("rated", "rate-limited"), ("poor", "budget-spent")])
def test_who_has_used_it_up_is_told_the_same(
    server: Server, keys: dict[str, str], kind: str, code: str
) -> None:
    response = server.infer(headers=bearing(keys[kind + "-rest"]).headers)
    assert response.status_code == 200
    rest = statuses.by_rest(server, bearing(keys[kind + "-rest"]))
    stub_answers(server, keys[kind + "-grpc"])
    rpc = statuses.by_grpc(server, bearing(keys[kind + "-grpc"]))
    for refused, protocol in ((rest, "rest"), (rpc, "grpc")):
        assert (refused.problem["status"], refused.problem["code"]) == (429, code)
        assert f"key {kind}-{protocol}: " in refused.problem["detail"]
        assert int(refused.retry_after or 0) >= 1
    assert rest.problem.keys() == rpc.problem.keys()


def stub_answers(server: Server, key: str) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        metadata = [("authorization", f"Bearer {key}")]
        assert stub.ModelInfer(statuses.message(Ask()), metadata=metadata).outputs


def test_a_stream_counts_each_request(server: Server, keys: dict[str, str]) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)

        def codes(key: str) -> list[str]:
            answers = stub.ModelStreamInfer(
                iter([statuses.message(Ask())] * 3),
                metadata=[("authorization", f"Bearer {key}")],
            )
            return [
                answer.infer_response.parameters["gearshift_code"].string_param
                for answer in answers
            ]

        assert codes(keys["infers"]) == [""] * 3
        assert codes(keys["rated-stream"]) == ["", "rate-limited", "rate-limited"]
        assert codes("gs_made_up") == ["unauthorized"] * 3


def test_what_each_scope_may_call(server: Server, keys: dict[str, str]) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)

        def code(method: str, message: Any, key: str | None = None) -> str:
            metadata = [] if key is None else [("authorization", f"Bearer {keys[key]}")]
            try:
                getattr(stub, method)(message, metadata=metadata)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        assert code("ServerLive", pb.ServerLiveRequest()) == "OK"
        assert code("ServerReady", pb.ServerReadyRequest()) == "OK"
        metadata = pb.ModelMetadataRequest(name="echo")
        assert code("ModelMetadata", metadata) == "UNAUTHENTICATED"
        assert code("ModelMetadata", metadata, "infers") == "PERMISSION_DENIED"
        assert code("ModelMetadata", metadata, "reads") == "OK"
        assert code("RepositoryIndex", pb.RepositoryIndexRequest(), "reads") == "OK"
        unload = pb.RepositoryModelUnloadRequest(model_name="echo")
        assert code("RepositoryModelUnload", unload, "reads") == "PERMISSION_DENIED"
