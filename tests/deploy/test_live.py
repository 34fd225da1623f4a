"""Every query of every dashboard and rule, asked of a real Prometheus about real gateways."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from deploy.dashboards import promql
from tests.deploy.boards import NAMES, Asked, choices, queries
from tests.deploy.live import Operator, first_gateway, make_history, put, second_gateway
from tests.deploy.scraping import Prometheus, figures
from tests.e2e.harness import until
from tests.needs import program

# A query that gives nothing although all is as it should be, and why.
RIGHTLY_EMPTY = {
    ("overview", "Alerts that fire"): "an alert fires when something is wrong for minutes",
}


@dataclass(frozen=True)
class Seen:
    """What was scraped, and when."""

    prometheus: Prometheus
    from_s: float
    to_s: float

    def figures(self, expression: str, instant: bool) -> list[float]:
        """The numbers that a query gives, at the end or over all of the time."""
        if instant:
            return figures(self.prometheus.at(expression, self.to_s))
        return figures(self.prometheus.over(expression, self.from_s, self.to_s))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Two gateways and Prometheus, after some eventful seconds."""
    program("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("live")
    with ExitStack() as stack:
        fault = folder / "fault"
        first = stack.enter_context(first_gateway(folder / "first", fault))
        second = stack.enter_context(second_gateway(folder / "second"))
        until(lambda: "\nready: http://" in first.log(), "all workers have settled")
        operator = Operator(first)
        targets = (first.address, second.address)
        key = operator.key("scraper", "default", "read")
        (folder / "prometheus").mkdir()
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", targets, key))
        scraped = "count(count by (instance) (gearshift_lanes)) == 2"
        until(lambda: prometheus.at(scraped, time.time()), "both are scraped")
        from_s = time.time()
        make_history(first, second, operator, folder / "first", fault)
        done_s = time.time()
        shown = "timestamp(gearshift_lanes)"
        until(
            lambda: min(figures(prometheus.at(shown, time.time())), default=0) > done_s,
            "the end is scraped too",
        )
        yield Seen(prometheus, from_s, time.time())


@pytest.mark.parametrize("asked", queries(), ids=str)
def test_a_query_of_a_dashboard_gives_an_answer(seen: Seen, asked: Asked) -> None:
    found = seen.figures(put(asked.expression), asked.instant)
    assert found or (asked.board, asked.where) in RIGHTLY_EMPTY, asked.expression


def test_every_selector_finds_something(seen: Seen) -> None:
    """A ratio whose part is misspelt is 0, not empty."""
    texts = [put(asked.expression) for asked in queries()]
    selectors = {
        found for text in texts for found in re.findall(r"gearshift_\w+(?:{[^}]*})?", text)
    }
    lost = {s for s in selectors if not seen.prometheus.over(s, seen.from_s, seen.to_s)}
    assert lost == set() and len(selectors) > 80


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_has_values(seen: Seen, name: str) -> None:
    for variable, query in choices(name).items():
        wanted = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
        assert wanted, query
        values = seen.prometheus.values(wanted[2], wanted[1])
        assert set(values) >= {"model": {"echo", "images"}, "tenant": {"gold", "silver"}}[variable]


def test_every_rule_can_be_evaluated_and_every_recording_has_series(seen: Seen) -> None:
    rules = seen.prometheus.rules()
    assert {"recording", "alerting"} == {rule["type"] for rule in rules}
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    assert {name for name in recorded if not seen.figures(name, instant=True)} == set()


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("gearshift:attainment:ratio_rate5m", promql.attainment(by="model", over="5m")),
        (
            "gearshift:effective_accuracy_all:ratio_rate5m",
            promql.accuracy_over_all(by="model", over="5m"),
        ),
        (
            "gearshift:effective_accuracy_answered:ratio_rate5m",
            promql.accuracy_over_answered(by="model", over="5m"),
        ),
        ("gearshift:coverage:ratio_rate5m", promql.coverage(by="model", over="5m")),
        ("gearshift:lane_utilisation:ratio_rate5m", promql.utilisation(over="5m")),
    ],
)
def test_a_dashboard_and_the_rules_mean_the_same(seen: Seen, recorded: str, shown: str) -> None:
    by = "" if "lane" in recorded else " by (model)"

    def evaluated_s() -> float:
        return max(figures(seen.prometheus.at(f"timestamp({recorded})", time.time())))

    # What was scraped while a rule was evaluated may be in one of the two and not in the other.
    until(lambda: evaluated_s() > seen.to_s + 2, "the rules know all that happened")
    at_s = evaluated_s()
    rules, board = (
        {one["metric"].get("model", ""): figures([one]) for one in seen.prometheus.at(query, at_s)}
        for query in (f"avg{by} ({recorded})", put(shown))
    )
    assert board and rules.keys() == board.keys()
    for model, figure in board.items():
        assert rules[model] == pytest.approx(figure, abs=0.01), model


def test_what_happened_is_seen(seen: Seen) -> None:
    events = {
        asked.where: seen.figures(put(asked.expression), asked.instant)
        for asked in queries()
        if asked.board == "shifting" and asked.where in ("Loaded", "Swapped", "Evicted", "Breaker")
    }
    assert all(events.values()) and len(events) == 4
    ends = promql.rate("gearshift_requests_total", by="outcome", over="60s")
    found = {one["metric"]["outcome"] for one in seen.prometheus.at(ends, seen.to_s)}
    assert found >= {"ok", "overloaded", "unsatisfiable", "unknown-variant", "deadline-passed"}
