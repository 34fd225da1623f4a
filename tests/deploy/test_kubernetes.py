"""The manifests for Kubernetes: valid by the published schemas, and true of what they run."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from cloudcoil.models.prometheus_operator import v1 as operator

from deploy.docker import dockerfile
from deploy.kubernetes import rules
from gateway import settings
from gateway.processes.workers import _GRACE_S
from gateway.settings import PREFIX, Settings
from tests.deploy.manifests import (
    FOLDER,
    Objects,
    containers,
    only,
    overlay,
    pod,
    rendered,
    with_object_store,
)
from tests.e2e.harness import Server
from tests.stores import write_variant

OVERLAYS = ("dev", "prod")
# The oldest that knows a preStop hook without a shell, and the newest published.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
_OPERATOR = "monitoring.coreos.com/v1"
_SERVE = dockerfile.read(FOLDER.parent / "docker" / "serve.Dockerfile")[1]


@pytest.fixture(params=[*OVERLAYS, "object-store"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """Everything of one overlay; `object-store` is prod with that component added."""
    if request.param != "object-store":
        return overlay(request.param)
    return with_object_store(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_by_the_published_schemas(objects: Objects, version: str) -> None:
    own = [one for one in objects.values() if one["apiVersion"] != _OPERATOR]
    assert {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= {
        one["kind"] for one in own
    }
    for one in own:
        kubernetes_validate.validate(one, version, strict=True)


def test_the_operators_objects_are_valid_by_its_own_models() -> None:
    for kind in ("ServiceMonitor", "PrometheusRule"):
        one = only(overlay("prod"), kind)
        read = getattr(operator, kind).model_validate(one)
        # What the model does not know, it leaves out: nothing may be lost on the way.
        kept = json.loads(read.model_dump_json(by_alias=True, exclude_unset=True))
        assert kept["spec"] == one["spec"]


def test_a_misspelt_member_is_found() -> None:
    broken = json.loads(json.dumps(only(overlay("prod"), "Deployment")))
    broken["spec"]["template"]["spec"]["terminationGracePeriodsSeconds"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_selectors_find_the_pods(objects: Objects) -> None:
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    chosen: dict[str, Any] = {
        "deployment": only(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        "service": only(objects, "Service")["spec"]["selector"],
        "budget": only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        "policy": only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "spread": pod(objects)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    }
    for name, selector in chosen.items():
        assert selector and selector.items() <= labels, name
    clients = only(objects, "NetworkPolicy")["spec"]["ingress"][0]["from"][0]["podSelector"]
    assert not clients["matchLabels"].items() <= labels  # pods are no clients of each other


def test_the_monitor_finds_the_service() -> None:
    objects = overlay("prod")
    service = only(objects, "Service")
    monitor = only(objects, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {one["port"] for one in monitor["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }


def test_ports_are_the_programs_own_and_the_admin_port_is_none_of_them(objects: Objects) -> None:
    (gateway,) = pod(objects)["containers"]
    port = Settings().port
    opened = {one["name"]: one["containerPort"] for one in gateway["ports"]}
    assert opened == {"http": port, "grpc": port + 1}
    assert {one["targetPort"] for one in only(objects, "Service")["spec"]["ports"]} == set(opened)
    for rule in only(objects, "NetworkPolicy")["spec"]["ingress"]:
        assert {one["port"] for one in rule["ports"]} <= set(opened)
    assert str(port + 2) not in json.dumps(list(objects.values()))


def test_probes_ask_what_the_server_answers_without_a_key(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32")
    (gateway,) = pod(overlay("prod"))["containers"]
    with Server(models, wait="/readyz", require_keys=True) as server:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert server.client.get(gateway[probe]["httpGet"]["path"]).status_code == 200
        (monitored,) = only(overlay("prod"), "ServiceMonitor")["spec"]["endpoints"]
        assert server.client.get(monitored["path"]).status_code == 401
        assert "authorization" in monitored


def _settings(objects: Objects, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the server in the pod reads them: the image's, the pod's, and the file's."""
    (gateway,) = pod(objects)["containers"]
    file = folder / "gearshift.toml"
    file.write_text(only(objects, "ConfigMap")["data"][file.name], encoding="utf-8")
    secret = "postgresql+psycopg://gearshift@postgresql/gearshift"
    own = {one["name"]: one.get("value", secret) for one in gateway["env"]}
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in (_SERVE.pairs("ENV") | own).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    assert own[settings.CONFIG_VARIABLE] == f"/etc/gearshift/{file.name}"
    monkeypatch.delenv(settings.CONFIG_VARIABLE)
    return settings.load(config=file)


def test_what_the_pod_sets_can_be_read(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = _settings(objects, tmp_path, monkeypatch)
    assert chosen.host == "0.0.0.0"
    assert chosen.admin_host == "127.0.0.1"
    (gateway,) = pod(objects)["containers"]
    mounted = {one["mountPath"]: one for one in gateway["volumeMounts"]}
    assert not mounted[str(chosen.state)].get("readOnly")
    (check,) = [one for one in containers(objects) if one["name"] in ("verify", "pull")]
    assert check["args"] == [check["name"], str(chosen.models)]
    assert check["image"] == gateway["image"]
    assert (check["name"] == "pull") == ("://" in str(chosen.models))
    if "://" not in str(chosen.models):
        assert mounted[str(chosen.models)]["readOnly"]


def test_only_prod_is_closed_without_keys_that_all_pods_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = _settings(overlay("prod"), tmp_path, monkeypatch)
    assert chosen.require_keys and str(chosen.database).startswith("postgresql")


def test_a_pod_may_drain_before_it_is_killed(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = _settings(objects, tmp_path, monkeypatch)
    (gateway,) = pod(objects)["containers"]
    before = gateway["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = before + chosen.drain_seconds + _GRACE_S
    assert pod(objects)["terminationGracePeriodSeconds"] >= needed


def test_no_container_can_do_more_than_it_must(objects: Objects) -> None:
    spec = pod(objects)
    user, group = (int(number) for number in _SERVE.only("USER").split(":"))
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (
        user,
        group,
    )
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for one in containers(objects):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(one["resources"]["limits"]) == {"cpu", "memory"}
        name, _, tag = one["image"].rpartition(":")
        assert name.rpartition("/")[2] in ("gearshift-serve", "gearshift-compress")
        assert tag not in ("", "latest")
    (gateway,) = spec["containers"]
    # Lanes count cores: a share of one, or one that others borrow, breaks promises.
    assert gateway["resources"]["requests"] == gateway["resources"]["limits"]
    assert int(gateway["resources"]["limits"]["cpu"]) >= 1


def test_what_is_mounted_and_claimed_exists(objects: Objects) -> None:
    volumes = {one["name"]: one for one in pod(objects)["volumes"]}
    for one in containers(objects):
        assert {mount["name"] for mount in one["volumeMounts"]} <= set(volumes)
    for volume in volumes.values():
        if claim := volume.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in objects
        if config := volume.get("configMap"):
            assert ("ConfigMap", config["name"]) in objects


def test_a_changed_setting_rolls_the_pods(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in (FOLDER / "base").iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    before = only(rendered(base), "ConfigMap")["metadata"]["name"]
    again = tmp_path / "again"
    base.rename(again)
    changed = (again / "gearshift.toml").read_text("utf-8").replace("30.0", "31.0")
    (again / "gearshift.toml").write_text(changed, encoding="utf-8")
    assert only(rendered(again), "ConfigMap")["metadata"]["name"] != before


def test_settings_of_the_base_are_settings() -> None:
    text = (FOLDER / "base" / "gearshift.toml").read_text("utf-8")
    assert set(tomllib.loads(text)) <= set(Settings.model_fields)


def test_the_rules_are_those_of_prometheus() -> None:
    assert rules.TARGET.read_text("utf-8") == rules.text(), (
        "run `python -m deploy.kubernetes.rules`"
    )
