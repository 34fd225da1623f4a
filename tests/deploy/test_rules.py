"""Recording rules and alerts: sound, tested by promtool both ways, and explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics.declared import METRICS
from gateway.settings import Settings
from tests.needs import program

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RUNBOOK = "docs/how-to/observe.md"
FILES = [FOLDER / "rules.yml", FOLDER / "alerts.yml"]

# Of the metrics that Prometheus itself adds, and of every series.
ADDED = {"up": {"job", "instance"}}
TARGET = {"job", "instance", "worker"}

_SELECTOR = re.compile(r"\b(gearshift_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?")
_RECORDED = re.compile(r"\bgearshift:[a-z0-9_]+:[a-z0-9_]+")


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in FILES
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]


ALERTS = [rule for rule in rules() if "alert" in rule]
TESTS = sorted((FOLDER / "tests").glob("*.yml"))


def promtool(*arguments: str | Path) -> None:
    command = [program("promtool", "prometheus"), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_rules_and_the_configuration_are_sound() -> None:
    promtool("check", "rules", *FILES)
    promtool("check", "config", FOLDER / "prometheus.yml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_record_and_fire_as_they_should(path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_is_tested_where_it_fires_and_where_it_does_not() -> None:
    expected: dict[str, set[bool]] = {}
    for path in TESTS:
        for test in yaml.safe_load(path.read_text("utf-8"))["tests"]:
            for case in test.get("alert_rule_test", ()):
                expected.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert {rule["alert"] for rule in ALERTS} == expected.keys()
    assert all(cases == {True, False} for cases in expected.values()), expected


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_uses_only_what_there_is(rule: dict[str, Any]) -> None:
    known = ADDED | {
        series: {*declared.labels, *TARGET, *(("le",) if series.endswith("_bucket") else ())}
        for declared in METRICS
        for series in declared.series
    }
    recorded = {each["record"] for each in rules() if "record" in each}
    assert set(_RECORDED.findall(rule["expr"])) <= recorded
    for name, selector in _SELECTOR.findall(_RECORDED.sub("", rule["expr"])):
        assert name in known
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)) <= known[name], name


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_what_to_do(rule: dict[str, Any]) -> None:
    said = rule["annotations"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert "{{" in said["summary"] and said["description"].endswith(".")
    page, _, anchor = said["runbook"].partition("#")
    assert (page, anchor) == (RUNBOOK, rule["alert"].lower())
    text = (FOLDER.parents[1] / page).read_text("utf-8")
    assert re.search(rf"^### {rule['alert']}$", text, re.MULTILINE)


def test_every_alert_of_the_page_is_one() -> None:
    text = (FOLDER.parents[1] / RUNBOOK).read_text("utf-8")
    named = re.findall(r"^### (Gearshift\w+)$", text, re.MULTILINE)
    assert named == [rule["alert"] for rule in ALERTS]


def test_no_path_passes_for_an_address() -> None:
    """Alertmanager and Grafana make links of what is called a URL."""
    for rule in ALERTS:
        for name, said in rule["annotations"].items():
            assert not name.endswith("_url") or said.startswith("https://"), rule["alert"]


def test_the_page_names_settings_and_routes_that_there_are() -> None:
    text = (FOLDER.parents[1] / RUNBOOK).read_text("utf-8")
    named = set(re.findall(r"`(default_\w+)`", text))
    assert named and named <= Settings.model_fields.keys()
    assert "`/admin`" not in text


def test_prometheus_scrapes_the_default_address() -> None:
    found = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    (job,) = found["scrape_configs"]
    defaults = Settings()
    assert job["static_configs"] == [{"targets": [f"{defaults.host}:{defaults.port}"]}]
    assert job["metrics_path"] == "/metrics"
    assert found["rule_files"] == [path.name for path in FILES]
