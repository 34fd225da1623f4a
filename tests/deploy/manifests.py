"""What Kustomize makes of deploy/kubernetes, by kind and name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
# From the package index, so it lies beside the interpreter.
_KUBECTL = Path(sys.executable).parent / "kubectl"

Objects = dict[tuple[str, str], dict[str, Any]]


@cache
def rendered(folder: Path) -> Objects:
    """Every object that a kustomization makes; no two of one kind may share a name."""
    command = [_KUBECTL, "kustomize", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, ran.stderr  # what it deprecates, it says there
    found: Objects = {}
    for one in yaml.safe_load_all(ran.stdout):
        place = (one["kind"], one["metadata"]["name"])
        assert place not in found
        found[place] = one
    return found


def overlay(name: str) -> Objects:
    """An overlay, by its folder's name."""
    return rendered(FOLDER / "overlays" / name)


def with_object_store(folder: Path) -> Objects:
    """`prod` with the component for a bucket added, written down in `folder`."""
    own = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(FOLDER / "overlays" / "prod", folder)],
        "components": [os.path.relpath(FOLDER / "components" / "object-store", folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    return rendered(folder)


def only(objects: Objects, kind: str) -> dict[str, Any]:
    """The one object of a kind."""
    (found,) = [one for (own, _), one in objects.items() if own == kind]
    return found


def pod(objects: Objects) -> dict[str, Any]:
    """What the deployment says of a pod."""
    found: dict[str, Any] = only(objects, "Deployment")["spec"]["template"]["spec"]
    return found


def containers(objects: Objects) -> Iterator[dict[str, Any]]:
    """Those of the pod, the ones that only start it first."""
    spec = pod(objects)
    yield from spec["initContainers"]
    yield from spec["containers"]
