"""The dashboards are what their source says, and ask only for what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.dashboards import everything
from gateway.metrics.declared import METRICS, PREFIX
from tests.deploy.boards import GRAFANA, NAMES, Asked, board, choices, links, panels, queries

_SELECTOR = re.compile(r"\b(gearshift_[a-z_]+)(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\bby \(([^)]*)\) \((?:\w+\()?(\w+)")
_VARIABLES = {"datasource", "model", "tenant"}
# What a scrape adds to each series.
_ADDED = {"instance", "job", "worker"}


def _labels_by_series() -> dict[str, set[str]]:
    return {
        series: {*metric.labels, *_ADDED, *(["le"] if series.endswith("_bucket") else [])}
        for metric in METRICS
        for series in metric.series
    }


def _named(legend: str) -> set[str]:
    return set(re.findall(r"\{\{(\w+)\}\}", legend))


def _kept(expression: str) -> set[str]:
    """The labels that the answer to a query has."""
    groups = [{label.strip() for label in by.split(",")} for by, _ in _GROUPED.findall(expression)]
    joined = set(re.findall(r'label_join\(.*, "(\w+)", " "', expression))
    return (set.union(*groups) - {"le"} if groups else set()) | joined


def test_the_committed_files_are_what_the_source_says() -> None:
    assert {path.stem for path in GRAFANA.glob("*.json")} == set(NAMES)
    for name, text in everything().items():
        assert (GRAFANA / f"{name}.json").read_text("utf-8") == text, (
            f"{name}.json: run `make dashboards`"
        )


@pytest.mark.parametrize("asked", queries(), ids=str)
def test_a_query_uses_only_series_and_labels_that_exist(asked: Asked) -> None:
    known = _labels_by_series()
    for name, selector in _SELECTOR.findall(asked.expression):
        assert name in known, name
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= known[name], name
    for group, name in _GROUPED.findall(asked.expression):
        if name.startswith(PREFIX):
            assert {label.strip() for label in group.split(",")} <= known[name], name
    assert _named(asked.legend) <= _kept(asked.expression)
    assert set(re.findall(r"\$(?!__)(\w+)", asked.expression)) <= _VARIABLES


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {name for asked in queries() for name, _ in _SELECTOR.findall(asked.expression)}
    assert [metric.name for metric in METRICS if not shown & set(metric.series)] == []


@pytest.mark.parametrize("name", NAMES)
def test_panels_explain_themselves_and_do_not_overlap(name: str) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in board(name)["panels"]:
        at = panel["gridPos"]
        across, down = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        own = {(x, y) for x in across for y in down}
        assert not cells & own, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own
        if panel["type"] == "row":
            continue
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    ids = [panel["id"] for panel in board(name)["panels"]]
    titles = [panel["title"] for panel in panels(name)]
    assert len(set(ids)) == len(ids) and len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_source_is_chosen_by_a_variable(name: str) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert board(name)["templating"]["list"][0]["name"] == "datasource"
    for part in (*panels(name), *board(name)["annotations"]["list"]):
        assert part["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in part.get("targets", []))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_chosen_is_shown_exactly_where_it_is_heeded(name: str) -> None:
    text = " ".join(asked.expression for asked in queries() if asked.board == name)
    for variable in board(name)["templating"]["list"]:
        if variable["name"] != "datasource":
            assert (variable.get("hide", 0) == 0) == (f"${variable['name']}" in text)
    assert choices(name).keys() == {"model", "tenant"}


@pytest.mark.parametrize("name", NAMES)
def test_a_link_leads_somewhere_and_carries_what_is_chosen(name: str) -> None:
    uids = {board(other)["uid"] for other in NAMES}
    every = [(panel, url) for panel in panels(name) for url in links(panel)]
    assert {panel["title"] for panel, _ in every} == {panel["title"] for panel in panels(name)}
    for panel, url in every:
        uid = re.match(r"/d/([\w-]+)\?", url)
        assert uid and uid[1] in uids - {board(name)["uid"]}, url
        assert "${__url_time_range}" in url
        carried = set(re.findall(r"var-(\w+)=", url)) | set(re.findall(r"\{(\w+):queryparam", url))
        assert carried == _VARIABLES, url
        for label in re.findall(r"__field\.labels\.(\w+)", url):
            assert all(label in _kept(t["expr"]) for t in panel["targets"]), (panel["title"], url)
        for column in re.findall(r"__data\.fields\.(\w+)", url):
            assert column in _columns(panel), (panel["title"], url)


def _columns(panel: dict[str, Any]) -> set[str]:
    renamed = [t["options"].get("renameByName", {}) for t in panel["transformations"]]
    return {column for each in renamed for column in each.values()}


@pytest.mark.parametrize("name", NAMES)
def test_a_table_names_only_columns_that_its_queries_give(name: str) -> None:
    for panel in panels(name):
        if panel["type"] != "table":
            continue
        several = len(panel["targets"]) > 1
        given = {f"Value #{t['refId']}" if several else "Value" for t in panel["targets"]}
        given |= set.union(*(_kept(target["expr"]) for target in panel["targets"]))
        (organised,) = [t["options"] for t in panel["transformations"] if t["id"] == "organize"]
        assert organised["renameByName"].keys() <= given, panel["title"]
        assert given <= organised["renameByName"].keys() | organised["excludeByName"].keys()
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in _columns(panel), panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_an_override_is_for_a_series_of_its_panel(name: str) -> None:
    for panel in panels(name):
        legends = [target["legendFormat"] for target in panel["targets"]]
        for override in panel["fieldConfig"]["overrides"] if panel["type"] == "timeseries" else []:
            wanted = override["matcher"]["options"]
            free = any(legend == f"{{{{{label}}}}}" for legend in legends for label in _OPEN)
            assert free or any(re.search(wanted, legend) for legend in legends), panel["title"]


# Labels whose values are ours, so that a series may be called by one.
_OPEN = ("outcome", "constraint", "reason")


def test_grafana_finds_the_dashboards_and_prometheus() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = _yaml(provisioning / "datasources" / "gearshift.yaml")["datasources"]
    assert source["type"] == "prometheus" and source["url"].startswith("http://")
    scraped = _yaml(GRAFANA.parent / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
    (provider,) = _yaml(provisioning / "dashboards" / "gearshift.yaml")["providers"]
    assert provider["type"] == "file" and provider["options"]["path"] == "/etc/gearshift/grafana"


def _yaml(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found
