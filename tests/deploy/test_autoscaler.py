"""The autoscaler's metrics: what it scales by exists, and says what it is meant to say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import declared
from tests.deploy.manifests import FOLDER, only, overlay
from tests.needs import program

ADAPTER = FOLDER / "prometheus-adapter.yaml"
_RULES: list[dict[str, Any]] = yaml.safe_load(ADAPTER.read_text("utf-8"))["rules"]["custom"]
_POD = 'namespace="gearshift",pod="one"'
# Ten minutes, a sample every five seconds.
_SERIES = {
    f'gearshift_deadlines_total{{outcome="kept",{_POD}}}': "0+18x120",
    f'gearshift_deadlines_total{{outcome="missed",{_POD}}}': "0+1x120",
    f'gearshift_deadlines_total{{outcome="shed",{_POD}}}': "0+1x120",
    f'gearshift_deadlines_total{{outcome="relaxed",{_POD}}}': "0+50x120",
    f'gearshift_queue_age_seconds{{model="a",{_POD}}}': "0x117 0.3 0 0",
    f'gearshift_queue_age_seconds{{model="b",{_POD}}}': "0.1x120",
    f"gearshift_lane_busy_seconds_total{{{_POD}}}": "0+7.5x120",
    f"gearshift_lanes{{{_POD}}}": "2x120",
}
_BUSY = {
    "gearshift_missed_deadlines_ratio": 0.1,
    "gearshift_queue_age_seconds": 0.3,
    "gearshift_lane_utilisation": 0.75,
}


def _query(rule: dict[str, Any]) -> str:
    """As prometheus-adapter asks: of one pod, grouped by it."""
    query: str = rule["metricsQuery"]
    return query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", _POD)


def _said(series: dict[str, str], expected: dict[str, float], folder: Path) -> str:
    """What promtool finds wrong with the answers after ten minutes of `series`; "" for nothing."""
    tests = {
        "evaluation_interval": "5s",
        "tests": [
            {
                "interval": "5s",
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "promql_expr_test": [
                    {
                        "expr": _query(rule),
                        "eval_time": "10m",
                        "exp_samples": [
                            {"labels": '{pod="one"}', "value": expected[rule["name"]["as"]]}
                        ],
                    }
                    for rule in _RULES
                    if rule["name"]["as"] in expected
                ],
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump(tests), encoding="utf-8")
    command = [program("promtool", "prometheus"), "test", "rules", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True)
    return ran.stderr + ran.stdout if ran.returncode else ""


def test_what_it_scales_by_is_what_the_adapter_offers() -> None:
    asked = [
        one["pods"]["metric"]["name"]
        for one in only(overlay("prod"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    ]
    assert sorted(asked) == sorted(rule["name"]["as"] for rule in _RULES) == sorted(_BUSY)


def test_the_adapter_asks_for_metrics_that_exist() -> None:
    known = {name: set(one.labels) for one in declared.METRICS for name in one.series}
    for rule in _RULES:
        used = re.findall(r"(gearshift_\w+)\{([^}]*)\}", rule["metricsQuery"] + rule["seriesQuery"])
        assert used
        for name, selector in used:
            labels = set(re.findall(r"(\w+)(?:=~|!=|=)", selector)) - {"namespace", "pod"}
            assert labels <= known[name], name


def test_a_busy_pod_is_seen_as_busy(tmp_path: Path) -> None:
    assert _said(_SERIES, _BUSY, tmp_path) == ""


def test_a_pod_that_nobody_asks_has_values_too(tmp_path: Path) -> None:
    idle = {
        f"gearshift_lanes{{{_POD}}}": "2x120",
        f"gearshift_lane_busy_seconds_total{{{_POD}}}": "3x120",
        f'gearshift_queue_age_seconds{{model="a",{_POD}}}': "0x120",
    }
    assert _said(idle, dict.fromkeys(_BUSY, 0.0), tmp_path) == ""


@pytest.mark.parametrize("name", sorted(_BUSY))
def test_a_wrong_value_is_found(name: str, tmp_path: Path) -> None:
    assert name.removeprefix("gearshift_")[:5] in _said(_SERIES, {name: _BUSY[name] + 1}, tmp_path)


def test_it_scales_the_deployment_between_bounds() -> None:
    objects = overlay("prod")
    spec = only(objects, "HorizontalPodAutoscaler")["spec"]
    target = spec["scaleTargetRef"]
    assert (target["kind"], target["name"]) in objects
    assert 1 < spec["minReplicas"] < spec["maxReplicas"]
    # The autoscaler's number of pods must not be undone by applying the manifests.
    assert "replicas" not in only(objects, "Deployment")["spec"]
    # One pod may always be taken away for a node's sake.
    assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] < spec["minReplicas"]
