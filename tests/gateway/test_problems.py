"""Every error of the tree as an HTTP answer."""

from __future__ import annotations

import json

import pytest

from gateway.wire import problems
from router import errors
from router.errors import GearshiftError, InvalidRequest, NotReady, Overloaded, Unsatisfiable


def tree(kind: type[GearshiftError]) -> list[type[GearshiftError]]:
    """`kind` and what is below it; errors of other modules are no answers to a request."""
    own = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(leaf for child in own for leaf in tree(child))]


def test_every_error_has_a_status() -> None:
    assert set(problems.STATUSES) == set(tree(errors.GearshiftError))


@pytest.mark.parametrize("kind", tree(errors.GearshiftError))
def test_every_error_is_a_problem_that_v2_clients_can_read(kind: type[GearshiftError]) -> None:
    made: dict[type[GearshiftError], GearshiftError] = {
        InvalidRequest: InvalidRequest("id", 1, "text"),
    }
    if issubclass(kind, Overloaded):
        made[kind] = kind("too much", 0.2)
    error = made.get(kind) or kind("what happened")
    status, headers, body = problems.of(error)
    document = json.loads(body)
    assert document["status"] == status == problems.STATUSES[kind]
    assert document["error"] == document["detail"] == error.detail
    assert document["code"] == kind.code
    assert document["type"].endswith(kind.code)
    assert document["title"] == kind.title
    assert (b"content-type", b"application/problem+json") in headers
    assert (b"content-length", b"%d" % len(body)) in headers


def test_an_invalid_request_names_field_received_and_expected() -> None:
    _, _, body = problems.of(InvalidRequest("inputs[0].datatype", "FP64", "FP32"))
    document = json.loads(body)
    assert document["field"] == "inputs[0].datatype"
    assert (document["received"], document["expected"]) == ("FP64", "FP32")


def test_what_would_fit_stands_beside() -> None:
    _, _, body = problems.of(Unsatisfiable("no", nearest={"max_latency_ms": 2.5}))
    assert json.loads(body)["nearest"] == {"max_latency_ms": 2.5}


@pytest.mark.parametrize(("after_s", "header"), [(0.0, b"1"), (0.2, b"1"), (1.5, b"2")])
def test_retry_after_is_whole_seconds_and_never_at_once(after_s: float, header: bytes) -> None:
    for error, expected in ((Overloaded("too much", after_s), 429), (NotReady("no", after_s), 503)):
        status, headers, body = problems.of(error)
        assert status == expected
        assert (b"retry-after", header) in headers
        assert json.loads(body)["retry_after_s"] == after_s


def test_what_nobody_knows_when_to_retry_does_not_say_when() -> None:
    _, headers, body = problems.of(NotReady("the server is stopping"))
    assert b"retry-after" not in dict(headers)
    assert "retry_after_s" not in json.loads(body)


def test_hostile_text_makes_no_header_and_no_broken_json() -> None:
    received = 'x"\r\nSet-Cookie: a=b\ud800'.encode("utf-8", "replace").decode()
    _, headers, body = problems.of(InvalidRequest("variant", received, "a name"))
    assert received in json.loads(body)["received"]
    assert all(b"\n" not in value and b"\r" not in value for _, value in headers)


def test_statuses_of_http_itself() -> None:
    status, _, body = problems.of_status(405, "no PUT here", [(b"allow", b"POST")])
    assert status == 405
    assert json.loads(body)["code"] == "method-not-allowed"
