"""The door when its ledger is away, locked, or makes no sense."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.trust.ledger import FILE, Ledger, LedgerUnusable
from router.errors import (
    NotReady,
)
from tests.gateway.doors import Doors, admits, made, may, run, soon, today


def test_a_database_that_lost_its_keys_opens_nothing(doors: Doors) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger)
        async with doors.open() as access:
            other = sqlite3.connect(doors.folder / FILE)
            other.execute("DELETE FROM gearshift_keys")
            other.commit()
            other.close()
            await access.exchange()
            assert not access.open
            assert not admits(access, None)
            assert admits(access, authorization)  # as last known

    run(test)


def test_without_its_database_the_door_goes_by_what_it_knew(doors: Doors) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger, budget_usd_per_day=0.01)
        async with doors.open() as access:
            assert access.metrics.registry.get_sample_value("gearshift_ledger_up") == 1
            hidden = doors.folder.with_name("hidden")
            doors.folder.rename(hidden)

            def up() -> float | None:
                found: float | None = access.metrics.registry.get_sample_value(
                    "gearshift_ledger_up"
                )
                return found

            await soon(lambda: up() == 0)
            assert not access.open
            assert not admits(access, None)
            access.leave(access.enter(authorization, "infer"), 0.02)
            assert not admits(access, authorization)
            with pytest.raises(NotReady, match="the ledger cannot be written"):
                await access.create_key({"name": "new"})
            # What was spent meanwhile is told when it is back.
            hidden.rename(doors.folder)
            await soon(lambda: up() == 1)
            await soon(lambda: access.report()[0]["spent_usd_today"] == pytest.approx(0.02))
        assert Ledger(None, doors.folder, "p").exchange(today(), {}, None).totals

    run(test)


def test_a_lock_of_somebody_else_stops_nobody(
    doors: Doors, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.trust.ledger._LOCK_S", 0.01)

    async def test() -> None:
        _, authorization = made(doors.ledger)
        async with doors.open() as access:
            lock = sqlite3.connect(doors.folder / FILE, isolation_level=None)
            lock.execute("BEGIN EXCLUSIVE")
            assert admits(access, authorization)
            await soon(lambda: "database is locked" in caplog.text)
            assert "keys go on as last known" in caplog.text
            assert admits(access, authorization)
            lock.execute("ROLLBACK")
            lock.close()
            await soon(lambda: "can be used again" in caplog.text)

    run(test)


def test_keys_that_cannot_be_read_at_the_start_let_nobody_in(doors: Doors) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger)
        whole = (doors.folder / FILE).read_bytes()
        (doors.folder / FILE).write_bytes(b"no database" * 100)
        async with doors.open() as access:
            for presented in (None, authorization):
                with pytest.raises(NotReady, match="the keys cannot be read"):
                    access.enter(presented, "infer")
            (doors.folder / FILE).write_bytes(whole)
            await soon(lambda: may(access, authorization))

    run(test)


def test_a_ledger_that_appears_and_cannot_be_read_closes_the_door(
    doors: Doors, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with doors.open() as access:
            assert access.open
            (doors.folder / FILE).mkdir(parents=True)  # there, and no database
            await soon(lambda: not access.open)
            for scope in ("infer", "admin"):
                with pytest.raises(NotReady, match="the keys cannot be read"):
                    access.enter(None, scope)
            assert "until it can nobody gets in" in caplog.text
            (doors.folder / FILE).rmdir()
            _, authorization = made(doors.ledger)
            await soon(lambda: may(access, authorization))
            assert not admits(access, None)

    run(test)


def test_a_ledger_that_makes_no_sense_closes_the_door(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(*_: Any) -> None:
        raise ValueError("a row that somebody wrote by hand")

    async def test() -> None:
        async with doors.open() as access:
            with monkeypatch.context() as patched:
                patched.setattr(Ledger, "exchange", nonsense)
                await soon(lambda: not access.open)
                with pytest.raises(NotReady, match="cannot be understood"):
                    access.enter(None, "infer")
            await soon(lambda: access.open)

    run(test)


def test_a_database_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg://user:hidden@127.0.0.1:9/none"
    with pytest.raises(LedgerUnusable) as refused:
        Ledger(url, tmp_path, "p").keys()
    assert "127.0.0.1" in str(refused.value)
    assert "hidden" not in str(refused.value)
