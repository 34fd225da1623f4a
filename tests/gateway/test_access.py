"""Who gets in: keys and their scopes, and what is open without any."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.metrics import Metrics
from gateway.trust import access as door
from gateway.trust import keys
from gateway.trust.access import ANYBODY
from gateway.trust.ledger import FILE, NameTaken
from router.errors import (
    Forbidden,
    InvalidRequest,
    RateLimited,
    Unauthorized,
)
from tests.gateway.doors import Doors, admits, bearer, made, run, soon


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
