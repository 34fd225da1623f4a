"""Figures and names of the manifests that no schema knows to be wrong: each by what it is for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.about import VERSION
from tests.deploy.manifests import FOLDER, only, overlay, pod
from tests.e2e.harness import Server
from tests.stores import write_variant

_PAGE = (FOLDER.parents[1] / "docs" / "how-to" / "deploy.md").read_text("utf-8")
_PROD = FOLDER / "overlays" / "prod" / "kustomization.yaml"
_UNITS = {"": 1.0, "m": 1e-3}


def _quantity(text: str) -> float:
    found = re.fullmatch(r"(\d+)([a-z]?)", text)
    assert found, text
    return int(found[1]) * _UNITS[found[2]]


def test_a_pod_that_cannot_answer_gets_no_requests_and_is_not_ended(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32", fail_load=True)
    (gateway,) = pod(overlay("prod"))["containers"]
    with Server(models, wait="/healthz") as server:
        status = {
            probe: server.client.get(gateway[f"{probe}Probe"]["httpGet"]["path"]).status_code
            for probe in ("startup", "readiness", "liveness")
        }
    assert status == {"startup": 200, "readiness": 503, "liveness": 200}


def test_a_pod_serves_until_proxies_know_that_it_goes() -> None:
    (gateway,) = pod(overlay("prod"))["containers"]
    sleeps = gateway["lifecycle"]["preStop"]["sleep"]["seconds"]
    probe = gateway["readinessProbe"]
    assert sleeps >= 2 * probe["periodSeconds"] * probe["failureThreshold"]
    assert f"it serves for {sleeps} more seconds (`preStop`)" in _PAGE


def test_it_scales_at_what_the_page_says() -> None:
    targets = {
        one["pods"]["metric"]["name"]: _quantity(one["pods"]["target"]["averageValue"])
        for one in only(overlay("prod"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    }
    said = {
        name: int(figure) * (1e-3 if unit == "ms" else 1e-2)
        for name, figure, unit in re.findall(r"^\| `(gearshift_\w+)` \| (\d+) (ms|%)", _PAGE, re.M)
    }
    assert targets == pytest.approx(said)
    assert targets["gearshift_missed_deadlines_ratio"] <= 0.01  # the objective is 99 %


def _egress(rule: dict[str, Any]) -> tuple[str, list[tuple[str, int]]]:
    (peer,) = rule["to"]
    (selector,) = peer.values()
    (label,) = selector["matchLabels"].values()
    return label, [(one["protocol"], one["port"]) for one in rule["ports"]]


def test_names_and_the_database_can_be_reached_and_nothing_else() -> None:
    names = ("kube-system", [("UDP", 53), ("TCP", 53)])
    for overlay_, more in (("dev", []), ("prod", [("postgresql", [("TCP", 5432)])])):
        rules = only(overlay(overlay_), "NetworkPolicy")["spec"]["egress"]
        assert [_egress(rule) for rule in rules] == [names, *more]


def test_prometheus_may_come_from_where_its_adapter_is_installed() -> None:
    installed = re.search(
        r"--namespace (\S+)", (FOLDER / "prometheus-adapter.yaml").read_text("utf-8")
    )
    assert installed
    _, scraper = only(overlay("prod"), "NetworkPolicy")["spec"]["ingress"]
    (peer,) = scraper["from"]
    labels = {"kubernetes.io/metadata.name": installed[1]}
    assert peer == {"namespaceSelector": {"matchLabels": labels}}
    assert installed[1] == "monitoring"  # as Prometheus' own charts have it


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_namespace_lets_no_pod_do_more_than_these(name: str) -> None:
    labels = only(overlay(name), "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_what_runs_in_production_is_this_version() -> None:
    (gateway,) = pod(overlay("prod"))["containers"]
    assert gateway["image"].rpartition(":")[2] == VERSION


def test_the_secrets_that_the_page_makes_are_those_that_are_read() -> None:
    objects = overlay("prod")
    (gateway,) = pod(objects)["containers"]
    (database,) = [
        (one["valueFrom"]["secretKeyRef"]["name"], one["valueFrom"]["secretKeyRef"]["key"])
        for one in gateway["env"]
        if "valueFrom" in one
    ]
    (endpoint,) = only(objects, "ServiceMonitor")["spec"]["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    made = r"create secret generic (\S+) \\\n\s+--from-literal=(\w+)="
    found = re.findall(made, _PAGE)
    assert found == [database, (credentials["name"], credentials["key"])]
    namespace = only(objects, "Namespace")["metadata"]["name"]
    commands = re.findall(r"^kubectl -n (\S+) (?:create|exec|rollout)", _PAGE, re.M)
    assert commands == [namespace] * 4
    # In the order in which each can be done.
    steps = (
        "overlays/prod/namespace.yaml",
        f"generic {database[0]}",
        "apply -k deploy/kubernetes/overlays/prod",
        "keys create prometheus --scope read",
        f"generic {credentials['name']}",
    )
    places = [_PAGE.index(step) for step in steps]
    assert places == sorted(places)
    assert "docs/how-to/deploy.md" in _PROD.read_text("utf-8")
