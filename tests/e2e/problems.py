"""What every problem answer must be."""

from __future__ import annotations

from typing import Any

import httpx


def assert_problem(response: httpx.Response, status: int, **members: Any) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert problem["title"] and problem["type"] and problem["code"]
    assert "Traceback" not in response.text and ".py" not in response.text
    assert members.items() <= problem.items(), problem
    return problem


def assert_invalid(response: httpx.Response, field: str, received: str) -> None:
    """400 that names the field, what came, and what was expected."""
    problem = assert_problem(response, 400, code="invalid-request", retryable=False, field=field)
    assert received in problem["received"]
    assert problem["expected"]
    assert problem["detail"].startswith(f"{field}: expected {problem['expected']}, got ")
