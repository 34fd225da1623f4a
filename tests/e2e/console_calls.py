"""What the console's API tells, for the tests of it."""

from __future__ import annotations

from typing import Any

from tests.e2e.harness import Server

DATA = ("/console/state", "/console/history", "/console/decisions")


def state(server: Server) -> Any:
    answer = server.client.get("/console/state")
    assert answer.status_code == 200, answer.text
    return answer.json()


def echo(server: Server) -> Any:
    (model,) = [model for model in state(server)["models"] if model["name"] == "echo"]
    return model


def variants(server: Server) -> dict[str, Any]:
    return {variant["name"]: variant for variant in echo(server)["variants"]}


def latest(server: Server, **which: Any) -> Any:
    answer = server.client.get("/console/decisions", params={"limit": 1, **which})
    assert answer.status_code == 200, answer.text
    return answer.json()["decisions"][0]
