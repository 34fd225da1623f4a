"""The OpenAPI document is true: schemathesis asks a real server for what it promises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.schemas import BaseSchema

from tests.e2e.harness import Server, infer_body
from tests.stores import write_variant

# Whether a request fits the model is nothing that a document for all models can say; and where
# nobody has made a key, everybody may.
_EXCLUDED = ("positive_data_acceptance", "ignored_auth")
# What it would be a pity to unload in the middle.
_LEFT_OUT = "/v2/repository/models/{model}/unload"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32", accuracy=0.95, labels=("a", "b", "c"))
    write_variant(models, "echo", "small", accuracy=0.90, labels=("a", "b", "c"))
    with Server(models) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def api(server: Server) -> BaseSchema:
    return schemathesis.openapi.from_url(f"http://{server.address}/openapi.json")


def checks() -> list:
    return [check for check in CHECKS.get_all() if check.__name__ not in _EXCLUDED]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_asked_is_answered_as_promised(
    api: BaseSchema, server: Server, mode: GenerationMode
) -> None:
    base_url, asked = f"http://{server.address}", 0
    wanted = api.exclude(path=_LEFT_OUT)
    if mode is GenerationMode.NEGATIVE:  # which takes long to make; one infer is like the other
        wanted = wanted.exclude(path="/v2/models/{model}/versions/{version}/infer")
    for found in wanted.get_all_operations():

        @given(found.ok().as_strategy(generation_mode=mode))
        @settings(
            max_examples=8 if mode is GenerationMode.POSITIVE else 3,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Case) -> None:
            nonlocal asked
            # Half of the models and variants exist, or hardly anything but 404 would be seen.
            for name, known in (("model", "echo"), ("version", "small")):
                if len(str(case.path_parameters.get(name, "xx"))) % 2:
                    case.path_parameters[name] = known
            asked += 1
            case.call_and_validate(base_url=base_url, checks=checks())

        with contextlib.suppress(Unsatisfiable):  # some paths leave nothing to get wrong
            ask()
    assert asked >= 12


def test_every_path_of_the_protocol_is_in_it(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    model = "/v2/models/{model}"
    version = model + "/versions/{version}"
    assert set(document["paths"]) >= {
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/repository/index",
        model, version, *(base + end for base in (model, version)
                          for end in ("/infer", "/ready", "/config", "/stats")),
        model + "/decide", "/metrics", "/healthz", "/readyz",
    }  # fmt: skip
    infer = document["paths"][model + "/infer"]["post"]
    assert {"200", "400", "404", "413", "422", "429", "503", "504"} <= set(infer["responses"])
    assert not [
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if "200" not in operation["responses"]
    ]


def test_answers_of_infer_are_what_it_says(server: Server, api: BaseSchema) -> None:
    for path, extra in (
        ("/v2/models/{model}/infer", {}),
        ("/v2/models/{model}/versions/{version}/infer", {"version": "small"}),
    ):
        for body in (
            infer_body(rows=2, id="x"),
            infer_body(parameters={"binary_data_output": True}),
            infer_body(outputs=[{"name": "logits", "parameters": {"classification": 2}}]),
            infer_body(parameters={"min_accuracy": 2}),
            infer_body(parameters={"min_accuracy": 0.99}),
        ):
            case = api[path]["POST"].Case(
                path_parameters={"model": "echo", **extra},
                body=body,
                media_type="application/json",
                headers={"Gearshift-Explain": "true"},
            )
            response = case.call(base_url=f"http://{server.address}")
            assert response.status_code in (200, 400, 422)
            case.validate_response(response, checks=checks())
