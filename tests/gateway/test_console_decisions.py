"""The console's latest decisions: what is kept of requests, and what of that may be shown."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import orjson
import pytest

from gateway.console.decisions import Decisions, safe_detail, stated
from gateway.messages import InferRequest, Origin
from router.constraints import Constraints, Floor
from router.decision import Decision, Refusal
from router.errors import (
    DeadlinePassed,
    EngineFailed,
    Forbidden,
    GearshiftError,
    InvalidRequest,
    NotReady,
    Overloaded,
    RateLimited,
    TooLarge,
    Unauthorized,
    UnknownModel,
    UnknownVariant,
    Unsatisfiable,
)
from tests.gateway.console_requests import NOW_S, request, response

SECRET = "s3cr3t-words"


def decisions() -> Decisions:
    return Decisions(lambda model: model == "echo")


def shown(kept: Decisions, **which: Any) -> list[dict[str, Any]]:
    asked = {"number": 0, "names": lambda _: {"fp32", "best"}, "limit": 100}
    return kept.since(**(asked | which))


def test_an_answer_says_what_was_asked_and_why_it_fell_so() -> None:
    kept = decisions()
    refusal = Refusal("int8", "min_accuracy", Floor(0.99, relative=True), 0.9)
    kept.answered(
        request(max_latency_ms=40, min_accuracy=Floor(0.99, relative=True), relax=("cost",)),
        response(reason="cheapest", why="of two", refused=(refusal,), relaxed=("cost",)),
        0.0123,
        NOW_S,
    )
    (found,) = shown(kept)
    assert found == {
        "id": int(NOW_S * 1e6),
        "at_ms": int(NOW_S * 1000),
        "model": "echo",
        "outcome": "ok",
        "variant": "fp32",
        "reason": "cheapest",
        "why": "of two",
        "latency_ms": 12.3,
        "predicted_ms": 7.5,
        "accuracy": 0.0,
        "cost_usd_per_million": 0.25,
        "constraints": {"max_latency_ms": 40, "min_accuracy": "99%", "relax": "cost"},
        "relaxed": ["cost"],
        "refused": [refusal.as_json()],
        "tenant": "gold",
        "protocol": "rest",
        "error": None,
    }


def test_nothing_of_a_request_is_kept_but_what_is_shown() -> None:
    kept, asked = decisions(), request()
    tensor = weakref.ref(asked.inputs["image"])

    def refused(asked: InferRequest) -> None:
        raise Overloaded(f"full for {asked.rows}", 1.0)

    try:
        refused(asked)
    except Overloaded as error:
        kept.failed("echo", error, 0.0, asked.origin, asked, NOW_S)
    kept.answered(asked, response(), 0.001, NOW_S)
    del asked
    gc.collect()
    assert tensor() is None
    assert len(shown(kept)) == 2


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest(f"inputs[0].{SECRET}", SECRET, SECRET),
        InvalidRequest("inputs[0].data", [SECRET], "numbers"),
        InvalidRequest.saying("body", SECRET),
        UnknownModel(SECRET),
        UnknownVariant(SECRET),
        TooLarge(SECRET),
        Forbidden(SECRET),
        EngineFailed(SECRET),
        GearshiftError(SECRET),
    ],
)
def test_what_a_caller_wrote_is_not_shown(error: GearshiftError) -> None:
    kept = decisions()
    asked = request(SECRET, variant=SECRET)
    kept.failed(SECRET, error, 0.0, asked.origin, asked, NOW_S)
    (found,) = shown(kept)
    assert SECRET not in orjson.dumps(found).decode()
    assert found["error"]["code"] == error.code and found["error"]["detail"]
    assert found["constraints"] == {"variant": "unknown"}


@pytest.mark.parametrize(
    "error",
    [
        Unsatisfiable("none fits"),
        Overloaded("full", 1.0),
        RateLimited("key a: too fast", 1.0),
        NotReady("starting"),
        DeadlinePassed("late"),
        Unauthorized("a key is needed"),
    ],
)
def test_what_the_server_says_itself_is_shown(error: GearshiftError) -> None:
    assert safe_detail(error) == error.detail


def test_a_field_is_named_where_it_is_one_of_the_protocol() -> None:
    for field in ("inputs[3].data", "gearshift-min-accuracy", "parameters.relax", "rows", "body"):
        assert safe_detail(InvalidRequest(field, "x", "y")) == f"Invalid request: {field}"


def test_a_refusal_shows_who_refused() -> None:
    kept, error = decisions(), Overloaded("full", 1.0)
    refusal = Refusal("fp32", "max_latency_ms", 1.0, 2.0)
    error.decision = Decision("echo", "overloaded", "accuracy", refused=(refusal,))
    kept.failed("echo", error, 0.5, Origin(), None, NOW_S)
    (found,) = shown(kept)
    assert found["refused"] == [refusal.as_json()]
    assert (found["outcome"], found["variant"], found["why"]) == ("overloaded", None, "full")


def test_what_comes_later_has_a_higher_number_however_the_clock_goes() -> None:
    kept = decisions()
    for at_s in (NOW_S, NOW_S, NOW_S - 100, NOW_S + 1):
        kept.answered(request(), response(), 0.001, at_s)
    numbers = [each["id"] for each in shown(kept)]
    assert numbers == sorted(set(numbers), reverse=True) and len(numbers) == 4
    now = kept.now()
    assert now > numbers[0]
    kept.answered(request(), response(), 0.001, NOW_S - 100)
    assert [each["id"] > now for each in shown(kept, number=now)] == [True]


def test_refusals_stay_while_answers_come_by_the_thousand() -> None:
    kept = decisions()
    kept.failed("echo", NotReady("starting"), 0.0, Origin(), None, NOW_S)
    for number in range(5000):
        kept.answered(request(), response(), 0.001, NOW_S + number)
    found = shown(kept, limit=10_000)
    assert found[-1]["outcome"] == "not-ready"
    assert len(found) < 300
    assert len(shown(kept, limit=3)) == 3
    assert shown(kept, model="other") == []


def test_what_is_rare_stays_beside_what_is_not() -> None:
    kept = Decisions(lambda model: model in ("echo", "quiet"))
    kept.answered(request("quiet"), response(), 0.001, NOW_S)
    kept.failed("echo", Unsatisfiable("none fits"), 0.0, Origin(), request(), NOW_S)
    for number in range(1000):
        kept.answered(request(), response(), 0.001, NOW_S + number)
        kept.failed("echo", Overloaded("full", 1.0), 0.0, Origin(), request(), NOW_S + number)
        kept.failed(f"any-{number}", UnknownModel("no"), 0.0, Origin(), None, NOW_S + number)
    (quiet,) = shown(kept, model="quiet")
    assert (quiet["model"], quiet["outcome"]) == ("quiet", "ok")
    (refused,) = shown(kept, model="echo", outcome="unsatisfiable")
    assert refused["error"]["detail"] == "none fits"
    assert {each["outcome"] for each in shown(kept, outcome="overloaded")} == {"overloaded"}
    assert {each["model"] for each in shown(kept, outcome="ok", limit=1000)} == {"echo", "quiet"}
    assert kept.outcomes("echo") == ["ok", "overloaded", "unsatisfiable"]
    assert kept.outcomes() == ["ok", "overloaded", "unknown-model", "unsatisfiable"]
    assert len(shown(kept, limit=10_000)) < 500


def test_models_that_are_gone_are_forgotten() -> None:
    known = {"first"}
    kept = Decisions(known.__contains__)
    kept.answered(request("first"), response(), 0.001, NOW_S)
    kept.failed("first", NotReady("starting"), 0.0, Origin(), None, NOW_S)
    kept.failed("anything", UnknownModel("no"), 0.0, Origin(), None, NOW_S)
    known.clear()
    known.add("second")
    kept.answered(request("second"), response(), 0.001, NOW_S)
    assert [each["model"] for each in shown(kept)] == ["second", ""]
    assert kept.outcomes() == ["ok", "unknown-model"]


def test_stated_leaves_out_what_was_not_asked() -> None:
    assert stated(Constraints()) == {}
    assert stated(Constraints(min_accuracy=Floor(0.97), priority="low", optimize="cost")) == {
        "min_accuracy": 0.97,
        "priority": "low",
        "optimize": "cost",
    }
