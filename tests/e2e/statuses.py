"""One table of requests that end without an answer, and how to ask each through REST and gRPC."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.e2e.harness import PATIENCE_S, Server

IMAGE: dict[str, Any] = {
    "name": "image",
    "datatype": "FP32",
    "shape": [1, 4],
    "data": [0.0, 1.0, 2.0, 3.0],
}

# HTTP status -> gRPC status code: what docs/reference/grpc.md promises.
CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_CONTENTS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT32": "int_contents"}


@dataclass(frozen=True)
class Ask:
    """One infer request, in no protocol's form."""

    model: str = "echo"
    version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Mapping[str, Any], ...] = (IMAGE,)
    outputs: tuple[Mapping[str, Any], ...] = ()


class Refused(NamedTuple):
    """How a request ended: its problem document, and two headers of the answer."""

    problem: dict[str, Any]
    retry_after: str | None
    traceparent: str | None


def by_rest(server: Server, ask: Ask) -> Refused:
    """Ask over REST."""
    version = f"/versions/{ask.version}" if ask.version else ""
    body = {"parameters": ask.parameters, "inputs": ask.inputs, "outputs": ask.outputs}
    response = server.client.post(
        f"/v2/models/{ask.model}{version}/infer", json=body, headers=ask.headers
    )
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    assert response.status_code == problem["status"]
    headers = response.headers
    return Refused(problem, headers.get("retry-after"), headers.get("traceparent"))


def by_grpc(server: Server, ask: Ask) -> Refused:
    """Ask over gRPC; the status must be the one that belongs to the problem."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        metadata = [(name.lower(), value) for name, value in ask.headers.items()]
        try:
            answer = stub.ModelInfer(message(ask), metadata=metadata, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return refusal(error)
        raise AssertionError(answer)


def refusal(error: Any) -> Refused:
    """What a call's status says, checked against itself."""
    trailing = dict(error.trailing_metadata())
    assert "gearshift-problem-bin" in trailing, error
    problem = json.loads(trailing["gearshift-problem-bin"])
    assert error.code().name == CODES[problem["status"]]
    assert error.details() == problem["detail"]
    assert trailing["gearshift-code"] == problem["code"]
    if "retry_after_s" in problem:
        pushback_s = int(trailing["grpc-retry-pushback-ms"]) / 1000
        assert problem["retry_after_s"] <= pushback_s <= problem["retry_after_s"] + 0.01
    return Refused(problem, trailing.get("retry-after"), trailing.get("traceparent"))


def message(ask: Ask) -> Any:
    """`ask` as a ModelInferRequest, with typed contents."""
    built = pb.ModelInferRequest(model_name=ask.model, model_version=ask.version or "")
    for key, value in ask.parameters.items():
        kind = {str: "string_param", bool: "bool_param", int: "int64_param", float: "double_param"}
        setattr(built.parameters[key], kind[type(value)], value)
    for tensor in ask.inputs:
        one = built.inputs.add(
            name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
        )
        getattr(one.contents, _CONTENTS[tensor["datatype"]]).extend(tensor["data"])
    for output in ask.outputs:
        built.outputs.add(name=output["name"])
    return built


def as_grpc_says(problem: Mapping[str, Any]) -> dict[str, Any]:
    """A problem of REST's with the one field that gRPC's messages call otherwise."""
    said = re.sub(r"\]\.data\b", "].contents", json.dumps(problem))
    return dict(json.loads(said))
