"""Rates, concurrency and budgets of keys: shared by processes, and kept over restarts."""

from __future__ import annotations

import time

import pytest

from gateway.trust.ledger import Ledger, Used
from router.errors import (
    BudgetSpent,
    RateLimited,
)
from tests.gateway.doors import DAY, Doors, admits, made, run, soon, today


def test_a_rate_holds_and_outlives_a_restart(doors: Doors) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger, requests_per_second=0.001, burst=3)
        async with doors.open() as access:
            assert [admits(access, authorization) for _ in range(5)] == [True] * 3 + [False] * 2
            with pytest.raises(RateLimited) as refused:
                access.enter(authorization, "infer")
            assert refused.value.retry_after_s > 900
        async with doors.open() as access:
            assert not admits(access, authorization)

    run(test)


def test_processes_share_a_rate(doors: Doors) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger, requests_per_second=0.001, burst=4)
        async with doors.open() as one, doors.open() as other:
            assert [admits(one, authorization) for _ in range(3)] == [True] * 3
            await soon(lambda: other.report()[0]["requests_today"] == 3)
            assert admits(other, authorization)
            assert not admits(other, authorization)
            await soon(lambda: one.report()[0]["requests_today"] == 4)
            assert not admits(one, authorization)

    run(test)


def test_concurrency_counts_other_processes_and_forgets_those_that_are_gone(doors: Doors) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger, concurrency=2)
        async with doors.open() as one, doors.open() as other:
            first, second = (one.enter(authorization, "infer") for _ in range(2))
            with pytest.raises(RateLimited, match="2 requests of this key run, of 2 at once"):
                one.enter(authorization, "infer")
            await soon(lambda: not admits(other, authorization))
            one.leave(first)
            await soon(lambda: admits(other, authorization))
            one.leave(second)
        # A process that was killed said nothing: it is forgotten for its silence.
        async with doors.open() as left:
            dead = Ledger(None, doors.folder, "killed")
            used = {key["id"]: Used(0, 0.0, 2, 1.0, 0.0) for key in left.report()}
            dead.exchange(DAY, used, None)
            await soon(lambda: not admits(left, authorization))
            await soon(lambda: admits(left, authorization))

    run(test)


def test_a_budget_is_spent_by_all_and_outlives_a_restart(doors: Doors) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger, budget_usd_per_day=0.01)
        async with doors.open() as one, doors.open() as other:
            one.leave(one.enter(authorization, "infer"), 0.006)
            other.leave(other.enter(authorization, "infer"), 0.005)
            await soon(lambda: not admits(one, authorization))
            await soon(lambda: not admits(other, authorization))
        async with doors.open() as later:
            with pytest.raises(BudgetSpent, match=r"0\.011 of 0\.01 USD are spent") as refused:
                later.enter(authorization, "infer")
            assert 0 < refused.value.retry_after_s <= 86_400
            assert later.report()[0]["spent_usd_today"] == pytest.approx(0.011)

    run(test)


def test_a_new_day_has_a_budget_of_its_own(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger, budget_usd_per_day=0.01)
        async with doors.open() as access:
            access.leave(access.enter(authorization, "infer"), 0.02)
            ledger = Ledger(None, doors.folder, "another")
            await soon(lambda: bool(ledger.exchange(today(), {}, None).totals))
            assert not admits(access, authorization)
            now = time.time
            monkeypatch.setattr(time, "time", lambda: now() + 86_400)
            await soon(lambda: admits(access, authorization))

    run(test)
