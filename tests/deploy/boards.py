"""The committed dashboards, and every query in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
NAMES = ("overview", "shifting", "variants", "lanes", "tenants")


@dataclass(frozen=True)
class Asked:
    """One query of one dashboard.

    Attributes:
        where: the dashboard, and the panel, variable or event.
        instant: it wants the values at the end of the time range alone.
        legend: how its series are called, or empty.
    """

    board: str
    where: str
    expression: str
    instant: bool
    legend: str

    def __str__(self) -> str:
        return f"{self.board}: {self.where}"


@cache
def board(name: str) -> dict[str, Any]:
    """One dashboard, as Grafana reads it."""
    found: dict[str, Any] = json.loads((GRAFANA / f"{name}.json").read_text("utf-8"))
    return found


def panels(name: str) -> list[dict[str, Any]]:
    """The panels of a dashboard that show something."""
    return [panel for panel in board(name)["panels"] if panel["type"] != "row"]


def queries() -> list[Asked]:
    """Every query of every panel and event."""
    found = []
    for name in NAMES:
        for panel in panels(name):
            for target in panel["targets"]:
                legend = target["legendFormat"].removeprefix("__auto")
                one = Asked(name, panel["title"], target["expr"], target["instant"], legend)
                found.append(one)
        for event in board(name)["annotations"]["list"]:
            found.append(Asked(name, event["name"], event["expr"], False, event["textFormat"]))
    return found


def choices(name: str) -> dict[str, str]:
    """The queries of a dashboard's variables, by variable."""
    return {
        variable["name"]: variable["query"]["query"]
        for variable in board(name)["templating"]["list"]
        if variable["type"] == "query"
    }


def links(value: Any) -> list[str]:
    """The address of every link to a dashboard in `value`."""
    if isinstance(value, dict):
        own = [value["url"]] if str(value.get("url", "")).startswith("/d/") else []
        return own + [url for each in value.values() for url in links(each)]
    return [url for each in value for url in links(each)] if isinstance(value, list) else []
