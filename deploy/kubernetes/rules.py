"""The rules of deploy/prometheus as an object of the Prometheus operator.

python -m deploy.kubernetes.rules
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1]
SOURCES = (DEPLOY / "prometheus" / "rules.yml", DEPLOY / "prometheus" / "alerts.yml")
TARGET = DEPLOY / "kubernetes" / "base" / "prometheusrule.yaml"
_HEAD = "# Written by `python -m deploy.kubernetes.rules` from the files of deploy/prometheus.\n"


def text() -> str:
    """What the file must hold.

    Raises:
        OSError, yaml.YAMLError: a source cannot be read, or is no YAML.
    """
    groups: list[Any] = []
    for source in SOURCES:
        groups += yaml.safe_load(source.read_text(encoding="utf-8"))["groups"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "gearshift"},
        "spec": {"groups": groups},
    }
    written: str = yaml.safe_dump(rule, sort_keys=False, width=100, allow_unicode=True)
    return _HEAD + written


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
