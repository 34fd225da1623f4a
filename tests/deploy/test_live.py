"""Every query of every dashboard and rule, asked of a real Prometheus about real gateways.

Two of them: one with two workers, keys of two tenants, a canary, a shadow, overload, a swap, a
fault and a build that does not load; and one with a memory limit, a floor for all, a response cache
and no keys.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.dashboards import promql
from gateway.processes.cores import usable_cores
from tests.deploy.boards import NAMES, Asked, choices, queries
from tests.deploy.scraping import Prometheus, figures
from tests.e2e.harness import PATIENCE_S, Server, infer_body, until
from tests.needs import program
from tests.stores import write_variant

MB = 1_000_000
_WORKERS = min(2, usable_cores())

# A query that gives nothing although all is as it should be, and why.
RIGHTLY_EMPTY = {
    ("overview", "Alerts that fire"): "an alert fires when something is wrong for minutes",
}

# What Grafana puts in the place of its own variables, for this short while.
_PUT = {
    "$__rate_interval": "4s",
    "$__range": "60s",
    "$model": ".*",
    "$tenant": ".*",
}


def put(expression: str) -> str:
    """The query as Grafana would send it, all models and tenants chosen."""
    for name, value in _PUT.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


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
        first = stack.enter_context(_first(folder / "first", fault))
        second = stack.enter_context(_second(folder / "second"))
        until(lambda: "\nready: http://" in first.log(), "all workers have settled")
        operator = _Operator(first)
        targets = (first.address, second.address)
        key = operator.key("scraper", "default", "read")
        (folder / "prometheus").mkdir()
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", targets, key))
        scraped = "count(count by (instance) (gearshift_lanes)) == 2"
        until(lambda: prometheus.at(scraped, time.time()), "both are scraped")
        from_s = time.time()
        _make_history(first, second, operator, folder / "first", fault)
        done_s = time.time()
        shown = "timestamp(gearshift_lanes)"
        until(
            lambda: min(figures(prometheus.at(shown, time.time())), default=0) > done_s,
            "the end is scraped too",
        )
        yield Seen(prometheus, from_s, time.time())


def _first(models: Path, fault: Path) -> Server:
    for variant, accuracy, ms in (("fp32", 0.95, 30), ("int8", 0.93, 8), ("small", 0.90, 2)):
        write_variant(
            models, "echo", variant, accuracy=accuracy, latency_ms_at_1=ms,
            latency_ms_at_32=4 * ms, delay_ms=ms, mirror=True,
        )  # fmt: skip
    write_variant(models, "fragile", "fp32", fault_file=str(fault))
    write_variant(models, "fragile", "int8", accuracy=0.94, latency_ms_at_1=0.5)
    return Server(
        models,
        workers=_WORKERS,
        max_batch=4,
        max_queue=12,
        watch_seconds=0.2,
        breaker_seconds=1.5,
    )


def _second(models: Path) -> Server:
    for variant, accuracy, ms in (("fp32", 0.95, 8), ("int8", 0.93, 4), ("small", 0.90, 1)):
        write_variant(
            models, "images", variant, accuracy=accuracy, latency_ms_at_1=ms,
            latency_ms_at_32=8 * ms, delay_ms=ms, resident_bytes=2 * MB,
        )  # fmt: skip
    return Server(
        models,
        memory_limit_mb=4,
        residency_seconds=0.2,
        response_cache_mb=1,
        default_min_accuracy="80%",
    )


class _Operator:
    """Who administrates a server that wants keys."""

    def __init__(self, server: Server) -> None:
        self._client = httpx.Client(base_url=f"{server.admin_url}/admin", timeout=PATIENCE_S)
        # The first key closes the server to whoever has none.
        self._client.headers.update(_bearer(self.key("operator", "default", "admin")))

    def call(self, method: str, path: str, **body: object) -> dict[str, object]:
        answer = self._client.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        found: dict[str, object] = answer.json()
        return found

    def key(self, name: str, tenant: str, *scopes: str) -> str:
        wanted = {"scopes": list(scopes)} if scopes else {}
        return str(self.call("POST", "/keys", name=name, tenant=tenant, **wanted)["key"])


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _headers(**wanted: object) -> dict[str, str]:
    return {f"Gearshift-{name.replace('_', '-')}": str(value) for name, value in wanted.items()}


# What is asked for while everything happens; each is answered, refused or late.
_WISHES = (
    {},
    _headers(Max_Latency_Ms=200),
    _headers(Max_Latency_Ms=50, Min_Accuracy=0.915),
    _headers(Max_Latency_Ms=12, Optimize="cost"),
    _headers(Max_Latency_Ms=3, Min_Accuracy="99%", Relax="latency,accuracy"),
    _headers(Min_Accuracy=0.99, Relax="accuracy"),
    _headers(Min_Accuracy=0.99),
    _headers(Max_Latency_Ms=35, Variant="fp32"),
    _headers(Max_Cost_Usd_Per_Million=0.05),
    _headers(Variant="nobody"),
    {"Authorization": "Bearer nobody"},
)


_ASKED = itertools.count()


@contextmanager
def _traffic(
    server: Server,
    model: str,
    keys: tuple[str, ...],
    wishes: tuple[Mapping[str, str], ...],
    clients: int,
    pause_s: float = 0.0,
) -> Iterator[list[int]]:
    """Requests by so many clients until the block is left; yields the statuses as they come."""
    statuses: list[int] = []
    going = True

    def client(number: int) -> None:
        mine = {**(_bearer(keys[number % len(keys)]) if keys else {})}
        turn = itertools.cycle(wishes[number % len(wishes) :] + wishes[: number % len(wishes)])
        # A connection each, so that both workers have some.
        with httpx.Client(base_url=server.client.base_url, timeout=PATIENCE_S) as one:
            while going:
                body, headers = infer_body(), mine | dict(next(turn))
                if (asked := next(_ASKED)) % 5:  # every fifth is the same: a cache may answer it
                    body["inputs"][0]["data"][0][1] = asked
                statuses.append(
                    one.post(f"/v2/models/{model}/infer", json=body, headers=headers).status_code
                )
                if pause_s:
                    time.sleep(pause_s)

    with ThreadPoolExecutor(clients) as pool:
        running: list[Future[None]] = [pool.submit(client, number) for number in range(clients)]
        try:
            yield statuses
        finally:
            going = False
            for one in running:
                one.result(PATIENCE_S)


def _make_history(
    first: Server, second: Server, operator: _Operator, models: Path, fault: Path
) -> None:
    keys = (operator.key("alice", "gold", "infer", "read"), operator.key("bob", "silver"))
    echo = "/models/echo/variants"
    write_variant(models, "echo", "candidate", accuracy=0.94, latency_ms_at_1=1, mirror=True)
    first.client.headers.update(_bearer(keys[0]))
    ready = "/v2/models/echo/versions/candidate/ready"
    until(lambda: first.client.get(ready).status_code == 200, "the candidate is loaded")
    operator.call("POST", f"{echo}/candidate/shadow", share=1)
    operator.call("POST", f"{echo}/int8/canary", share=0.3)
    with (
        ThreadPoolExecutor(1) as aside,
        _traffic(second, "images", (), ({},), 1, pause_s=0.02),
        _traffic(first, "echo", keys, _WISHES, 3, pause_s=0.01) as answered,
    ):
        evictions = aside.submit(_shift_demand, second)
        until(lambda: len(answered) > 100, "some are answered in peace")
        with _traffic(first, "echo", keys, _WISHES[:6], 16) as crowd:
            until(lambda: crowd.count(429) > 20 and len(crowd) > 150, "some are refused in a rush")
        _replace(models, "echo", "int8")
        write_variant(models, "fragile", "broken", fail_load=True)
        fault.write_text("raise")
        pinned = _headers(Variant="fp32")
        with _traffic(first, "fragile", keys, ({}, pinned), 4, pause_s=0.02) as faulty:
            until(lambda: len(faulty) > 30 and {200, 503} <= set(faulty), "the breaker opens")
            fault.unlink()
            until(lambda: faulty[-8:].count(200) == 8, "it closes again")
        swapped = "gearshift_variant_swaps_total"
        until(lambda: first.metric(swapped, variant="int8") >= _WORKERS, "the new build serves")
        evictions.result(PATIENCE_S)


def _shift_demand(server: Server) -> None:
    """Ask for small, then for int8: there is room for one of them beside fp32."""
    fast = _headers(Optimize="latency")
    evicted = "gearshift_variant_evictions_total"
    for count, wish in enumerate((fast, fast | _headers(Min_Accuracy=0.915)), start=1):
        with _traffic(server, "images", (), (wish,), 2, pause_s=0.005):
            until(lambda: server.metric(evicted) >= count, "demand shifts")  # noqa: B023


def _replace(models: Path, model: str, variant: str) -> None:
    """Another build in a variant's place, as a careful operator puts it there."""
    fresh = write_variant(
        models / ".fresh", model, variant, accuracy=0.93, latency_ms_at_1=8, latency_ms_at_32=32,
        delay_ms=8, mirror=True, files={"note.txt": b"another build"},
    )  # fmt: skip
    place = models / model / variant
    place.rename(models / ".before")
    fresh.rename(place)
    shutil.rmtree(models / ".before")
    shutil.rmtree(models / ".fresh")


@pytest.mark.parametrize("asked", queries(), ids=str)
def test_a_query_of_a_dashboard_gives_an_answer(seen: Seen, asked: Asked) -> None:
    found = seen.figures(put(asked.expression), asked.instant)
    if (asked.board, asked.where) not in RIGHTLY_EMPTY:
        assert found


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
    at_s = max(figures(seen.prometheus.at(f"timestamp({recorded})", seen.to_s)))
    rules, board = (
        {one["metric"].get("model", ""): figures([one]) for one in seen.prometheus.at(query, at_s)}
        for query in (f"avg{by} ({recorded})", shown)
    )
    assert board and rules.keys() == board.keys()
    for model, figure in board.items():
        assert rules[model] == pytest.approx(figure, abs=0.001), model


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
