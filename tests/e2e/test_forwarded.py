"""What a proxy passed on is not from this machine: without a key it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from gateway.cli import app
from gateway.trust.forwarded import passed_on
from tests.e2e.harness import PATIENCE_S, Server
from tests.e2e.problems import assert_problem
from tests.stores import write_three

MARKS = {
    "Forwarded": "for=203.0.113.5",
    "X-Forwarded-For": "203.0.113.5",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "203.0.113.5",
    "Via": "1.1 somewhere",
    "X-Envoy-External-Address": "203.0.113.5",
}
UNLOAD = "/v2/repository/models/echo/unload"
LOAD = "/v2/repository/models/echo/load"
DISABLE = "/console/admin/models/echo/variants/int8/disable"
ENABLE = "/console/admin/models/echo/variants/int8/enable"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    with Server(models, grpc_port=0) as server:
        yield server


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("host", [None, "localhost", "203.0.113.5"])
def test_without_a_key_nobody_administrates_through_a_proxy(
    server: Server, mark: str, host: str | None
) -> None:
    headers = {mark: MARKS[mark]} | ({} if host is None else {"Host": host})
    state = f"{server.admin_url}/admin/state"
    for method, url in (("POST", UNLOAD), ("POST", DISABLE), ("GET", state)):
        refused = server.client.request(method, url, headers=headers)
        assert_problem(refused, 401, code="unauthorized")
        assert "through a proxy" in refused.json()["detail"]
    assert server.client.get("/console/state", headers=headers).json()["admin"] is False
    assert server.infer(headers=headers).status_code == 200


def test_on_this_machine_everybody_administrates(server: Server) -> None:
    assert server.client.get("/console/state").json()["admin"] is True
    assert httpx.get(f"{server.admin_url}/admin/state", timeout=PATIENCE_S).status_code == 200
    for path in (DISABLE, ENABLE, UNLOAD, LOAD):
        assert server.client.post(path).status_code == 200, path


def test_the_same_over_grpc(server: Server) -> None:
    with InferenceServerClient(server.grpc_address) as client:
        for mark, value in MARKS.items():
            with pytest.raises(InferenceServerException, match="through a proxy") as refused:
                client.unload_model("echo", headers={mark.lower(): value})
            assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
        assert client.is_model_ready("echo", headers={"via": "1.1 somewhere"})
        client.unload_model("echo")
        client.load_model("echo")


def test_with_a_key_a_proxy_is_as_good_as_anything(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_three(models)
    command = ["keys", "create", "root", "--models", str(models), "--scope", "admin", "--json"]
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    key = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
    with Server(models) as server:
        for path in (DISABLE, ENABLE):
            answer = server.client.post(path, headers=MARKS | key)
            assert answer.status_code == 200, answer.text
            assert_problem(server.client.post(path, headers=MARKS), 401, code="unauthorized")


def test_what_callers_say_of_themselves_is_no_proxy() -> None:
    own = (b"host", b"user-agent", b"x-request-id", b"traceparent", b"gearshift-max-latency-ms")
    assert not passed_on(own)
    assert passed_on((*own, b"x-forwarded-for"))
