"""The door and its ledger: real databases, several processes' worth of doors on one of them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.metrics import Metrics
from gateway.trust import access as door
from gateway.trust import keys
from gateway.trust.access import ANYBODY, Access
from gateway.trust.keys import Key
from gateway.trust.ledger import FILE, Ledger, LedgerUnusable, NameTaken, Used
from router.errors import (
    BudgetSpent,
    Forbidden,
    InvalidRequest,
    NotReady,
    RateLimited,
    Unauthorized,
)

DAY = "2026-01-01"


def bearer(text: str) -> bytes:
    return f"Bearer {text}".encode()


def made(ledger: Ledger, name: str = "acme", **limits: Any) -> tuple[Key, bytes]:
    key, text = keys.create(keys.wanted({"name": name, **limits}), "2026-01-01T00:00:00+00:00")
    ledger.insert(key)
    return key, bearer(text)


class Doors:
    """Doors of one folder's ledger, as several processes have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(None, folder, "a test's")
        self._count = 0

    @asynccontextmanager
    async def open(self, **options: Any) -> Any:
        self._count += 1
        metrics = Metrics()
        found = Access(
            Ledger(None, self.folder, f"p{self._count}"),
            metrics,
            **{"require_keys": False, "loopback": True, **options},
        )
        found.metrics = metrics  # type: ignore[attr-defined]
        await found.start()
        try:
            yield found
        finally:
            await found.stop()


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    return Doors(tmp_path / "state")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanges follow each other at once, so that no test waits for one."""
    monkeypatch.setattr(door, "_EXCHANGE_EVERY_S", 0.01)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def admits(access: Access, authorization: bytes | None, scope: door.Scope = "infer") -> bool:
    try:
        caller = access.enter(authorization, scope)
    except (RateLimited, BudgetSpent, Unauthorized, Forbidden):
        return False
    access.leave(caller)
    return True


def test_open_until_there_is_a_key_and_never_again_after(doors: Doors) -> None:
    async def test() -> None:
        async with doors.open() as access:
            assert access.open
            assert access.enter(None, "infer") is ANYBODY
            assert access.enter(None, "admin") is ANYBODY
            assert not doors.folder.exists()
            _, authorization = made(doors.ledger)
            await soon(lambda: not access.open)
            with pytest.raises(Unauthorized):
                access.enter(None, "infer")
            assert admits(access, authorization)
            assert doors.ledger.revoke("acme", "2026-01-02T00:00:00+00:00")
            await soon(lambda: not admits(access, authorization))
            assert not access.open
        # Nor after a restart, though no key is left that could be used.
        async with doors.open() as access:
            assert not access.open

    run(test)


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


def test_what_is_open_without_keys(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with doors.open(loopback=False) as access:
            assert "everybody who reaches this server may use it" in caplog.text
            assert access.enter(None, "infer") is ANYBODY
            with pytest.raises(Unauthorized, match="from another machine"):
                access.enter(None, "admin")
            assert access.enter(None, "admin", loopback=True) is ANYBODY
        async with doors.open(require_keys=True) as access:
            assert not access.open
            with pytest.raises(Unauthorized):
                access.enter(None, "infer")

    run(test)


@pytest.mark.parametrize(
    "wrong",
    [None, b"", b"Bearer", b"Bearer x", b"Basic abc", b"Bearer gsk_000000000000_" + b"A" * 43],
)
def test_what_is_no_key(doors: Doors, wrong: bytes | None) -> None:
    async def test() -> None:
        made(doors.ledger)
        async with doors.open() as access:
            with pytest.raises(Unauthorized):
                access.enter(wrong, "infer")

    run(test)


def test_another_secret_with_the_right_id(doors: Doors) -> None:
    async def test() -> None:
        _, authorization = made(doors.ledger)
        async with doors.open() as access:
            other = authorization[:-1] + (b"A" if authorization[-1:] != b"A" else b"B")
            assert admits(access, authorization)
            assert not admits(access, other)
            assert admits(access, authorization.replace(b"Bearer", b"bearer"))

    run(test)


def test_scopes(doors: Doors) -> None:
    async def test() -> None:
        _, infer = made(doors.ledger, "app")
        _, read = made(doors.ledger, "dashboard", scopes=["read"])
        _, admin = made(doors.ledger, "operator", scopes=["admin"])
        async with doors.open() as access:
            scopes: tuple[door.Scope, ...] = ("infer", "read", "admin")
            for authorization, allowed in ((infer, "infer"), (read, "read"), (admin, scopes)):
                assert [s for s in scopes if admits(access, authorization, s)] == [
                    s for s in scopes if s in allowed
                ]
            with pytest.raises(Forbidden) as refused:
                access.enter(infer, "read")
            assert str(refused.value) == "key app has the scope infer; this needs read"

    run(test)


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
            await soon(lambda: bool(ledger.exchange(_today(), {}, None).totals))
            assert not admits(access, authorization)
            now = time.time
            monkeypatch.setattr(time, "time", lambda: now() + 86_400)
            await soon(lambda: admits(access, authorization))

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
        assert Ledger(None, doors.folder, "p").exchange(_today(), {}, None).totals

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
            await soon(lambda: _may(access, authorization))

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
            await soon(lambda: _may(access, authorization))
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


def test_keys_are_made_changed_and_revoked_at_the_door(doors: Doors) -> None:
    async def test() -> None:
        async with doors.open() as access:
            key, text = await access.create_key({"name": "acme", "concurrency": 1})
            assert not access.open  # at once, not at the next exchange
            assert admits(access, bearer(text))
            with pytest.raises(InvalidRequest, match="name: expected a name that no key in use"):
                await access.create_key({"name": "acme"})
            changed = await access.change_key("acme", {"scopes": ["read"], "burst": 5})
            assert changed is not None
            assert (changed.limits.concurrency, changed.limits.burst) == (1, 5)
            assert not admits(access, bearer(text))
            assert admits(access, bearer(text), "read")
            with pytest.raises(InvalidRequest, match="a name stays"):
                await access.change_key("acme", {"name": "other"})
            assert await access.change_key("nobody", {}) is None
            assert await access.revoke_key(key.id)
            assert not await access.revoke_key("acme")
            assert not admits(access, bearer(text), "read")
            await access.create_key({"name": "acme"})  # the name is free again

    run(test)


@pytest.mark.parametrize(
    ("raw", "field", "expected"),
    [
        ({}, "name", "a name for the key"),
        ({"name": "a b"}, "name", "letters, digits, dots"),
        ({"name": 3}, "name", "a valid string"),
        ({"name": "a", "scopes": ["write"]}, "scopes.0", "'infer', 'admin' or 'read'"),
        ({"name": "a", "scopes": []}, "scopes", "at least 1 item"),
        ({"name": "a", "burst": 0}, "burst", "greater than or equal to 1"),
        ({"name": "a", "requests_per_second": -1.0}, "requests_per_second", "greater than 0"),
        ({"name": "a", "budget_usd_per_day": float("nan")}, "budget_usd_per_day", "finite"),
        ({"name": "a", "limit": 1}, "limit", "one of name, tenant, scopes"),
        ({"name": "a", "tenant": "open"}, "tenant", "a name other than open, none, others"),
        ({"name": "a", "tenant": "a b"}, "tenant", "letters, digits, dots"),
    ],
)
def test_a_key_that_makes_no_sense(raw: dict[str, Any], field: str, expected: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        keys.wanted(raw)
    assert refused.value.members["field"] == field
    assert expected in str(refused.value.members["expected"])


def test_a_caller_has_the_tenant_of_its_key_also_where_it_is_refused(doors: Doors) -> None:
    async def test() -> None:
        async with doors.open() as access:
            _, text = await access.create_key({"name": "acme", "tenant": "gold", "concurrency": 1})
            caller = access.enter(bearer(text), "infer")
            assert (caller.name, caller.tenant) == ("acme", "gold")
            with pytest.raises(RateLimited) as busy:
                access.enter(bearer(text), "infer")
            assert access.kept_out(busy.value).tenant == "gold"
            with pytest.raises(Unauthorized) as unknown:
                access.enter(bearer(keys.create(keys.wanted({"name": "b"}), "now")[1]), "infer")
            assert access.kept_out(unknown.value).tenant == "none"
            access.leave(caller)
            await access.change_key("acme", {"tenant": "silver"})
            assert access.enter(bearer(text), "infer").tenant == "silver"

    run(test)


def test_nothing_that_is_kept_opens_the_door(doors: Doors) -> None:
    key, authorization = made(doors.ledger)
    secret = authorization.split(b"_", 2)[2]
    kept = b"".join(path.read_bytes() for path in doors.folder.iterdir())
    assert key.digest.encode() in kept
    assert secret not in kept
    assert key.digest not in repr(key.as_json())
    assert (doors.folder / FILE).stat().st_mode & 0o077 == 0
    assert doors.folder.stat().st_mode & 0o077 == 0


def test_keys_are_all_different() -> None:
    texts = {keys.create(keys.wanted({"name": "a"}), "now")[1] for _ in range(100)}
    assert len(texts) == 100
    assert {len(text) for text in texts} == {4 + 12 + 1 + 43}


def test_metrics_name_keys_and_no_more_of_them_than_is_bounded() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.key_entered(f"k{number}")
    metrics.key_refused("", "unauthorized")
    text = metrics.registry.collect()
    names = {
        sample.labels["key"]
        for family in text
        if family.name == "gearshift_key_requests"
        for sample in family.samples
    }
    assert {"k0", "others", "none"} <= names
    assert len(names) == 502


def test_a_name_is_taken_once(doors: Doors) -> None:
    made(doors.ledger)
    with pytest.raises(NameTaken):
        made(doors.ledger)


def test_a_database_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg://user:hidden@127.0.0.1:9/none"
    with pytest.raises(LedgerUnusable) as refused:
        Ledger(url, tmp_path, "p").keys()
    assert "127.0.0.1" in str(refused.value)
    assert "hidden" not in str(refused.value)


def _may(access: Access, authorization: bytes) -> bool:
    try:
        return admits(access, authorization)
    except NotReady:
        return False


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
