"""The console's values: what is counted of requests in steps, and joined from workers."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from gateway.console import files, joining
from gateway.console.history import History, joined, latency_class, percentile_ms
from gateway.messages import UNTOLD
from gateway.metrics import Metrics
from router import deadlines
from router.constraints import Constraints
from router.errors import (
    BudgetSpent,
    CallerLeft,
    DeadlinePassed,
    GearshiftError,
    NotReady,
    Overloaded,
    RateLimited,
)
from tests.gateway.console_requests import NOW_S, request, response


@pytest.mark.parametrize("seconds", [1e-5, 0.0002, 0.0123, 0.5, 42.0])
def test_a_latency_is_known_within_three_per_cent(seconds: float) -> None:
    found = percentile_ms({latency_class(seconds): 1}, 99)
    assert found == pytest.approx(seconds * 1000, rel=0.032)


def test_percentiles_are_those_of_all_latencies() -> None:
    classes = {latency_class(0.001): 98, latency_class(1.0): 2}
    assert percentile_ms(classes, 50) == pytest.approx(1.0, rel=0.03)
    assert percentile_ms(classes, 99) == pytest.approx(1000, rel=0.03)
    assert percentile_ms({}, 99) is None


def test_history_counts_every_outcome_in_its_step() -> None:
    history = History()
    start_s = NOW_S - NOW_S % 5
    for at_s in (start_s, start_s + 4.9, start_s + 5):
        history.answered(request(max_latency_ms=9), response(), 0.009, at_s)
    late = response("int8", relaxed=("latency",))
    history.answered(request(max_latency_ms=9), late, 0.02, start_s + 6)
    asked = Constraints(max_latency_ms=9)
    history.failed("echo", DeadlinePassed("late"), 0.02, start_s + 6, asked)
    history.failed("echo", Overloaded("full", 1.0), 0.0, start_s + 6, asked)
    history.failed("echo", Overloaded("full", 1.0), 0.0, start_s + 6, asked)
    history.sampled(3, 1, start_s + 6)
    history.sampled(2, 0, start_s + 7)
    told = joined([history.share(1, start_s + 6)])
    echo = told["models"]["echo"]
    assert told["from_ms"] == (start_s + 10 - 60) * 1000 and told["step_s"] == 5
    assert all(len(values) == 12 for values in (told["queued"], echo["kept"], echo["p99_ms"]))
    ends = {name: values[-2:] for name, values in {**echo["variants"], **echo["failed"]}.items()}
    assert ends == {
        "fp32": [2, 1], "int8": [0, 1], "deadline-passed": [0, 1], "overloaded": [0, 2],
    }  # fmt: skip
    assert echo["kept"][-2:] == [2, 1] and echo["relaxed"][-1] == 1
    assert echo["missed"][-1] == 1 and echo["shed"][-1] == 2
    assert echo["p99_ms"][-3] is None and echo["p99_ms"][-1] == pytest.approx(20, rel=0.03)
    assert told["queued"][-1] == 3 and told["busy"][-1] == 0.5


DEFAULT = Constraints(max_latency_ms=10)
ENDINGS = (0.0099, 0.0101, DeadlinePassed("late"), Overloaded("full", 1.0))
OTHERS = (
    RateLimited("fast", 1.0), BudgetSpent("spent", 1.0), NotReady("starting"), CallerLeft("gone"),
)  # fmt: skip


@pytest.mark.parametrize("default", [Constraints(), DEFAULT])
@pytest.mark.parametrize("end", [*ENDINGS, *OTHERS])
@pytest.mark.parametrize("relaxed", [(), ("latency",)])
@pytest.mark.parametrize("demands", [{}, {"max_latency_ms": 10}, {"variant": "fp32"}, None])
def test_the_console_counts_deadlines_as_metrics_do(
    default: Constraints,
    end: float | GearshiftError,
    relaxed: tuple[Any, ...],
    demands: dict[str, Any] | None,
) -> None:
    metrics, history = Metrics(), History()
    metrics.govern(default, 99)
    metrics.watch_model("echo", ["fp32"])
    asked = None if demands is None else request(**demands)
    if isinstance(end, GearshiftError):
        stated = None if asked is None else asked.constraints
        metrics.failed("echo", end, 0.01, UNTOLD, asked)
        history.failed("echo", end, 0.01, NOW_S, stated, default)
    else:
        one = asked or request()
        metrics.answered(one, response(relaxed=relaxed), end)
        history.answered(one, response(relaxed=relaxed), end, NOW_S, default)
    echo = joined([history.share(1, NOW_S)])["models"]["echo"]
    text = metrics.exposition("")[0].decode()
    for outcome in deadlines.OUTCOMES:
        counted = re.findall(rf'deadlines_total{{.*outcome="{outcome}".*}} ([\d.]+)', text)
        assert sum(map(float, counted)) == sum(echo[outcome]), outcome


def test_history_forgets_what_is_older_than_it_says() -> None:
    history = History()
    for second in range(0, 3600, 5):
        history.answered(request(), response(), 0.001, NOW_S + second)
    told = joined([history.share(999, NOW_S + 3595)])
    assert len(told["queued"]) == 180
    assert sum(told["models"]["echo"]["variants"]["fp32"]) == 180
    assert len(history._steps) == 180
    assert history.lately(60, NOW_S + 3595)["echo"]["fp32"] == {latency_class(0.001): 12}


def test_workers_are_one_history() -> None:
    one, other = History(), History()
    one.answered(request(), response(), 0.001, NOW_S)
    one.sampled(1, 1, NOW_S)
    for _ in range(99):
        other.answered(request(), response("int8"), 1.0, NOW_S)
    other.sampled(2, 1, NOW_S)
    # As they come from another process: keys are texts; and it was asked one step later.
    far = orjson.loads(orjson.dumps(other.share(1, NOW_S + 5), option=orjson.OPT_NON_STR_KEYS))
    told = joined([one.share(1, NOW_S), far])
    echo = told["models"]["echo"]
    assert echo["variants"]["fp32"][-2:] == [1, 0] and echo["variants"]["int8"][-2:] == [99, 0]
    assert echo["p99_ms"][-2] == pytest.approx(1000, rel=0.03)
    assert told["queued"][-2:] == [3, 0] and told["busy"][-2:] == [2.0, 0.0]


def share(state: str = "ready", breaker: str = "closed", **more: Any) -> dict[str, Any]:
    variant = {"name": "fp32", "state": state, "why": state, "breaker": breaker, "live": {"7": 1}}
    return {
        "ready": state == "ready",
        "stopping": False,
        "lanes": [{"lane": 0, "busy": True}],
        "queue": {"requests": 2, "oldest_ms": 5.0, "by_model": {"echo": 2}},
        "left_out": [],
        "models": [{"name": "echo", "served": True, "variants": [variant]}],
        **more,
    }


def test_the_least_ready_of_the_workers_is_told() -> None:
    queue = {"requests": 1, "oldest_ms": 9.0, "by_model": {"echo": 1}}
    told = joining.state(1, {0: share("loading", "open", queue=queue), 1: share()}, 2)
    (variant,) = told["models"][0]["variants"]
    assert (variant["state"], variant["breaker"], variant["why"]) == ("loading", "open", "loading")
    assert variant["live"]["answers"] == 2
    assert [lane["worker"] for lane in told["lanes"]] == [0, 1]
    assert told["queue"] == {"requests": 3, "oldest_ms": 9.0, "by_model": {"echo": 3}}
    assert told["status"]["tone"] == "wait" and told["worker"] == 1


@pytest.mark.parametrize(
    ("shares", "tone", "text"),
    [
        ({0: share()}, "good", "Ready: 1 of 1 variants serve"),
        ({0: share("loading")}, "wait", "Loading: 0 of 1 variants are settled"),
        ({0: share("failed")}, "bad", "Not ready: nothing of echo serves"),
        ({0: share(stopping=True)}, "wait", "Stopping"),
        ({0: share(models=[])}, "good", "Ready: 0 of 0"),
    ],
)
def test_status_in_words(shares: dict[int, Any], tone: str, text: str) -> None:
    status = joining.state(0, shares, 1)["status"]
    assert status["tone"] == tone and status["text"].startswith(text)


def test_a_silent_worker_is_told() -> None:
    told = joining.state(0, {0: share()}, 2)
    assert told["silent"] == [1] and told["status"]["tone"] == "wait"


def test_no_decision_is_told_twice_or_lost_between_workers() -> None:
    slow = {"last": 10, "outcomes": ["ok"], "decisions": [{"id": 9}]}
    quick = {"last": 12, "outcomes": ["not-ready"], "decisions": [{"id": 11}, {"id": 8}]}
    assert joining.decisions({0: slow, 1: quick}, 5) == {
        "last": 10,
        "outcomes": ["not-ready", "ok"],
        "decisions": [{"id": 9}, {"id": 8}],
    }


def test_charts_are_served_only_as_their_makers_wrote_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert {"charts.js", "charts.css", "index.html"} <= files.everything().keys()

    class Found:
        origin = str(tmp_path / "__init__.py")

    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "uplot.iife.min.js").write_text("alert(1)")
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda _: Found)
    assert "charts.js" not in files.everything()
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda _: None)
    assert "index.html" in files.everything() and "charts.js" not in files.everything()
