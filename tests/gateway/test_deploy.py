"""The files under deploy/ say only what the code knows: each setting, metric and label exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from gateway import settings
from gateway.metrics import Metrics
from gateway.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = DEPLOY / "gearshift.toml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "gearshift.json").read_text("utf-8"))

_SELECTOR = re.compile(r"\b(gearshift_[a-z_]+)(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")


def _expressions() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = DASHBOARD["templating"]["list"]
    return found + [v["query"]["query"] for v in variables if v["type"] == "query"]


def _labels_by_series() -> dict[str, set[str]]:
    """Every series that a scrape can hold, and its labels, from the metrics themselves."""
    series: dict[str, set[str]] = {}
    metrics = Metrics()
    family: Metric
    for family in metrics.registry.collect():
        (own,) = [
            collector
            for collector, names in metrics.registry._collector_to_names.items()
            if family.name in names
        ]
        labels = set(getattr(own, "_labelnames", ()))
        suffixes = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_sum", "_count"),
            "info": ("_info",),
        }
        for suffix in suffixes.get(family.type, ("",)):
            extra = {"_bucket": {"le"}, "_info": {"version"}}.get(suffix, set())
            series[family.name + suffix] = labels | extra
    return series


@pytest.mark.parametrize("expression", _expressions())
def test_a_query_uses_only_metrics_and_labels_that_exist(expression: str) -> None:
    known = _labels_by_series()
    used = _SELECTOR.findall(expression)
    assert used
    for name, selector in used:
        assert name in known
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)) <= known[name]
    for group in _GROUPED.findall(expression):
        labels = {label.strip() for label in group.split(",")}
        assert all(labels <= known[name] for name, _ in used), expression


def test_a_legend_names_only_labels_that_its_query_keeps() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            kept = {
                label.strip() for g in _GROUPED.findall(target["expr"]) for label in g.split(",")
            }
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for expression in _expressions() for name, _ in _SELECTOR.findall(expression)}
    for family in Metrics().registry.collect():
        assert any(name.startswith(family.name) for name in shown), family.name


def test_panels_explain_themselves_and_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert len(panel["description"]) > 10, panel["title"]
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & own, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_scrapes_the_default_address() -> None:
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
    defaults = Settings()
    assert f'"{defaults.host}:{defaults.port}"' in text
    assert "metrics_path: /metrics" in text


def _clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Settings.model_fields, "config"):
        monkeypatch.delenv(settings.PREFIX + name.upper(), raising=False)


def test_the_example_settings_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    _clear(monkeypatch)
    assert settings.load(config=EXAMPLE) == Settings()


def test_every_setting_is_in_the_example_with_its_meaning() -> None:
    text = EXAMPLE.read_text("utf-8")
    said = " ".join(re.sub(r"^#+ ?", "", text, flags=re.MULTILINE).split())
    for name, field in Settings.model_fields.items():
        assert re.search(rf"^(# )?{name} = ", text, re.MULTILINE), name
        assert field.description and field.description in said, name


def test_what_is_commented_out_loads_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _clear(monkeypatch)
    text = re.sub(r"^# (\w+ = )", r"\1", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)
    everything = tmp_path / "all.toml"
    everything.write_text(text, encoding="utf-8")
    assert settings.load(config=everything).model_fields_set == set(Settings.model_fields)
