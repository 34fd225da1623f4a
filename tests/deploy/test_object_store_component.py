"""The component for a store in a bucket: what one container fetches, the other serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import PREFIX, Settings
from tests.deploy.manifests import Objects, only, pod, with_object_store
from tests.e2e.harness import Server, infer_body
from tests.stores import write_variant

_BUCKET, _MOUNT = "s3://bucket/models", "/models"


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    folder = tmp_path / "overlay"
    folder.mkdir()
    return with_object_store(folder)


def _settings(container: dict[str, Any], here: dict[str, str]) -> dict[str, str]:
    """What a container sets of what lies elsewhere here, by its setting's name."""
    own = {one["name"].removeprefix(PREFIX).lower(): one.get("value") for one in container["env"]}
    return {name: here[value] for name, value in own.items() if value in here}


def test_what_is_pulled_first_is_what_the_gateway_serves(objects: Objects, tmp_path: Path) -> None:
    (pull,) = pod(objects)["initContainers"]
    (gateway,) = pod(objects)["containers"]
    far, copy = tmp_path / "far", tmp_path / "copy"
    write_variant(far, "echo", "fp32")
    here = {_BUCKET: far.as_uri(), _MOUNT: str(copy)}
    environment = {f"{PREFIX}{k.upper()}": v for k, v in _settings(pull, here).items()}
    command = [sys.executable, "-m", "gateway.cli", *(here.get(one, one) for one in pull["args"])]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    far.rename(tmp_path / "gone")  # nothing can be fetched any more
    chosen = _settings(gateway, here)
    url: Any = chosen.pop("models")
    with Server(url, state=tmp_path / "state", **chosen) as server:
        answer = server.client.post("/v2/models/echo/infer", json=infer_body())
        assert answer.status_code == 200
    (tmp_path / "gone" / "echo" / "fp32" / "card.json").write_text("{}")
    (tmp_path / "gone").rename(far)
    environment[f"{PREFIX}STORE_CACHE"] = str(tmp_path / "other")
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 1


def test_the_volume_gives_way_to_one_that_both_write(objects: Objects) -> None:
    assert not [kind for kind, _ in objects if kind == "PersistentVolumeClaim"]
    for one in (*pod(objects)["initContainers"], *pod(objects)["containers"]):
        assert {"name": "models", "mountPath": _MOUNT} in one["volumeMounts"]
        assert {"name": f"{PREFIX}STORE_CACHE", "value": _MOUNT} in one["env"]
        # The same settings say how much is fetched, and the same secret by whom.
        (config,) = [own["value"] for own in one["env"] if own["name"] == f"{PREFIX}CONFIG"]
        (settings,) = [own for own in one["volumeMounts"] if own["name"] == "settings"]
        assert str(Path(config).parent) == settings["mountPath"]
        assert one["envFrom"] == [{"secretRef": {"name": "gearshift-object-store"}}]


def test_the_copy_of_a_store_fits_its_folder(objects: Objects) -> None:
    volumes = {one["name"]: one for one in pod(objects)["volumes"]}
    limit = volumes["models"]["emptyDir"]["sizeLimit"]
    assert limit.endswith("Gi")
    assert int(limit.removesuffix("Gi")) * 2**30 >= Settings().store_cache_mb * 1e6


def test_a_bucket_can_be_reached(objects: Objects) -> None:
    to_anywhere = [
        one["ports"] for one in only(objects, "NetworkPolicy")["spec"]["egress"] if "to" not in one
    ]
    assert to_anywhere == [[{"protocol": "TCP", "port": 443}]]  # HTTPS
