"""Keys against a real server: every route, both protocols, the admin port, and a restart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner, Result

from gateway.cli import app
from tests.e2e.harness import PATIENCE_S, Server, infer_body, until
from tests.e2e.problems import assert_problem
from tests.stores import write_variant

FREE = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json"}


def keys_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


class Operator:
    """Who administrates a server, with the key that closed it."""

    def __init__(self, server: Server) -> None:
        self.url = f"{server.admin_url}/admin"
        self.headers: dict[str, str] = {}
        answer = self.ask("POST", "/keys", name="operator", scopes=["admin"])
        assert answer.status_code == 201
        self.headers = bearer(answer.json()["key"])

    def ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        content = json.dumps(body) if body else None
        return httpx.request(
            method, self.url + path, content=content, headers=self.headers, timeout=PATIENCE_S
        )

    def new_key(self, name: str, **wanted: Any) -> dict[str, str]:
        """The header of a new key."""
        answer = self.ask("POST", "/keys", name=name, **wanted)
        assert answer.status_code == 201, answer.text
        return bearer(answer.json()["key"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    # A batch of one on one lane for half a second costs a known price.
    write_variant(models, "echo", "fp32")
    with Server(models, grpc_port=0, usd_per_lane_hour=3600) as server:
        yield server


@pytest.fixture(scope="module")
def operator(server: Server) -> Operator:
    return Operator(server)


def test_every_route_but_health_needs_a_key(server: Server, operator: Operator) -> None:
    document = server.client.get("/openapi.json").json()
    asked = 0
    for path, methods in document["paths"].items():
        for method in methods:
            named = path.replace("{model}", "echo").replace("{version}", "fp32")
            answer = server.client.request(method, named)
            if path in FREE:
                assert answer.status_code == 200, path
            else:
                assert_problem(answer, 401, code="unauthorized")
                asked += 1
    assert asked >= 6
    for path in ("/console/state", "/nothing", "/v2/models/absent", "/v2/repository/index"):
        answer = server.client.get(path)
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="gearshift"'
    del operator


def test_infer_with_and_without(server: Server, operator: Operator) -> None:
    key = operator.new_key("app")
    assert_problem(server.infer(), 401, code="unauthorized")
    assert_problem(server.infer(headers=bearer("gsk_wrong")), 401)
    assert server.infer(headers=key).status_code == 200
    assert_problem(server.client.get("/v2/models/echo", headers=key), 403, needs="read")
    assert_problem(server.client.get("/metrics", headers=key), 403)
    load = server.client.post("/v2/repository/models/echo/load", headers=key)
    assert_problem(load, 403, needs="admin")
    assert operator.ask("GET", "/state").status_code == 200
    assert_problem(httpx.get(operator.url + "/state", headers=key), 403, needs="admin")
    # The secret of no key is in a log.
    assert key["Authorization"].split("_", 2)[2] not in server.log()


def test_the_same_through_grpc(server: Server, operator: Operator) -> None:
    key = operator.new_key("grpc-app", scopes=["read"])
    client = InferenceServerClient(server.grpc_address)
    assert client.is_server_live()
    with pytest.raises(InferenceServerException) as refused:
        client.get_model_metadata("echo")
    assert "UNAUTHENTICATED" in str(refused.value.status())
    metadata = {"authorization": key["Authorization"]}
    assert client.get_model_metadata("echo", headers=metadata).name == "echo"
    with pytest.raises(InferenceServerException) as refused:
        client.load_model("echo", headers=metadata)
    assert "PERMISSION_DENIED" in str(refused.value.status())
    client.close()


def test_a_rate_is_answered_with_when_to_come_back(server: Server, operator: Operator) -> None:
    key = operator.new_key("often", requests_per_second=0.01, burst=2)
    answers = [server.infer(headers=key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert_problem(answers[2], 429, code="rate-limited", retryable=True, key="often")
    assert 90 <= int(answers[2].headers["retry-after"]) <= 100
    changed = operator.ask("PATCH", "/keys/often", requests_per_second=1000.0)
    assert changed.json()["burst"] == 2
    until(lambda: server.infer(headers=key).status_code == 200, "the new rate holds")


def test_a_budget_is_charged_what_answers_cost(server: Server, operator: Operator) -> None:
    key = operator.new_key("poor", budget_usd_per_day=1e-9)
    answer = server.infer(headers=key)
    cost = float(answer.headers["gearshift-cost-usd-per-million"]) / 1e6
    assert cost > 1e-9
    refused = assert_problem(server.infer(headers=key), 429, code="budget-spent", key="poor")
    assert refused["retry_after_s"] > 0

    def spent() -> float:
        report = operator.ask("GET", "/keys").json()["keys"]
        return next(key["spent_usd_today"] for key in report if key["name"] == "poor")

    assert spent() == pytest.approx(cost, rel=1e-3)
    shown = server.client.get("/metrics", headers=operator.headers).text
    line = next(
        line
        for line in shown.split("\n")
        if line.startswith('gearshift_key_charged_usd_total{key="poor"')
    )
    assert float(line.split()[-1]) == pytest.approx(cost, rel=1e-3)
    spent_budget = {"model": "echo", "variant": "none", "outcome": "budget-spent"}
    series = re.findall(r"^gearshift_requests_total\{(.*)\} 1\.0$", shown, re.MULTILINE)
    labels = [dict(re.findall(r'(\w+)="([^"]*)"', text)) for text in series]
    assert {**spent_budget, "reason": "none", "tenant": "default"} in labels
    assert 'gearshift_key_requests_total{key="poor",outcome="budget-spent"} 1.0' in shown


def test_revoked_at_once(server: Server, operator: Operator) -> None:
    key = operator.new_key("gone")
    assert server.infer(headers=key).status_code == 200
    assert operator.ask("DELETE", "/keys/gone").status_code == 200
    assert_problem(server.infer(headers=key), 401)
    assert_problem(operator.ask("DELETE", "/keys/gone"), 404)
    assert_problem(operator.ask("PATCH", "/keys/gone", burst=1), 404)


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"{", "body"), (b"[]", "body"), (b'{"name": ""}', "name"), (b'{"name": "a", "b": 1}', "b")],
)
def test_a_key_that_makes_no_sense(operator: Operator, body: bytes, field: str) -> None:
    answer = httpx.post(operator.url + "/keys", content=body, headers=operator.headers)
    assert_problem(answer, 400, code="invalid-request", field=field)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8082"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_what_a_browser_sends_for_another_site_is_refused(
    server: Server, operator: Operator, headers: dict[str, str]
) -> None:
    answer = httpx.get(operator.url + "/state", headers=operator.headers | headers)
    problem = assert_problem(answer, 403, code="forbidden")
    assert next(iter(headers)) in problem["detail"]
    load = server.client.post("/v2/repository/models/echo/load", headers=operator.headers | headers)
    assert_problem(load, 403)


def test_the_admin_port_from_its_own_origin(operator: Operator) -> None:
    origin = operator.url.removesuffix("/admin")
    headers = operator.headers | {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert httpx.get(operator.url + "/state", headers=headers).status_code == 200
    assert httpx.get(f"{origin}/admin/openapi.json", headers=headers).json()["paths"]


def test_the_admin_api_is_not_on_the_public_port(server: Server, operator: Operator) -> None:
    assert_problem(server.client.get("/admin/keys", headers=operator.headers), 404)


def test_the_command_line_and_a_restart(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    where = ("--models", str(tmp_path))
    assert "everybody" in keys_command("list", *where).stdout
    with Server(tmp_path, admin_port="off") as server:
        assert server.infer().status_code == 200
        made = keys_command("create", "acme", "--requests-per-second", "0.001", *where)
        assert made.exit_code == 0, made.stderr
        key = bearer(made.stdout.strip())
        until(lambda: server.infer().status_code == 401, "the server is closed")
        assert server.infer(headers=key).status_code == 200
        assert_problem(server.infer(headers=key), 429, code="rate-limited")
        # Orchestrators have no key.
        assert server.client.get("/readyz").status_code == 200
    with Server(tmp_path, admin_port="off") as server:
        assert_problem(server.infer(), 401)
        assert_problem(server.infer(headers=key), 429, code="rate-limited")
        assert keys_command("revoke", "acme", *where).exit_code == 0
        until(lambda: server.infer(headers=key).status_code == 401, "the key is revoked")
    listed = json.loads(keys_command("list", "--json", *where).stdout)["keys"]
    assert [key["name"] for key in listed] == ["acme"]
    assert listed[0]["revoked"] is not None
    assert "digest" not in listed[0]


def test_require_keys(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with Server(tmp_path, require_keys=True) as server:
        assert_problem(server.infer(), 401)
        assert_problem(httpx.get(f"{server.admin_url}/admin/state"), 401)
        body = json.dumps(infer_body())
        assert_problem(server.client.post("/v2/models/echo/infer", content=body), 401)


def test_workers_share_keys_and_rates(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with Server(tmp_path, workers=2) as server:
        operator = Operator(server)
        key = operator.new_key("app", requests_per_second=0.001, burst=20)
        answers: list[int] = []

        def once() -> None:
            # A connection of its own each time: the kernel spreads connections over workers.
            with httpx.Client(base_url=f"http://{server.address}", timeout=PATIENCE_S) as client:
                path = "/v2/models/echo/infer"
                answers.append(client.post(path, json=infer_body(), headers=key).status_code)

        def worked() -> bool:
            once()
            return 401 not in answers[-8:]

        until(worked, "both workers know the key")
        until(lambda: once() or answers[-1] == 429, "one of them refuses")
        until(lambda: once() or answers[-8:] == [429] * 8, "both of them refuse")
        assert 20 <= answers.count(200) <= 40
