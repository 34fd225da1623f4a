"""The ledger's promises, on each database it may be kept in."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.trust import keys
from gateway.trust.keys import Key
from gateway.trust.ledger import FILE, Ledger, LedgerUnusable, NameTaken, Total, Used
from router.quota import Limits
from tests.e2e.harness import PATIENCE_S, until
from tests.needs import program

DAY, NEXT_DAY = "2026-01-01", "2026-01-02"
NOW = "2026-01-01T00:00:00+00:00"

Open = Callable[[str], Ledger]


def used(requests: int = 0, usd: float = 0.0, running: int = 0) -> Used:
    return Used(requests, usd, running, 1.5, 1000.0)


def key(name: str, **limits: object) -> Key:
    return keys.create(keys.wanted({"name": name, **limits}), NOW)[0]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server of PostgreSQL, on a port of its own, for this module."""
    initdb, server = (
        program(name, "postgresql", "postgresql/*/bin") for name in ("initdb", "postgres")
    )
    # It refuses to run as root; the package makes this user.
    user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp())
    data = folder / "data"
    if user is not None:
        shutil.chown(folder, user)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--auth=trust", "--username=gearshift", "--no-sync", "--encoding=UTF8"]
    subprocess.run(
        [initdb, *options, str(data)], user=user, check=True, cwd="/",
        stdout=subprocess.DEVNULL, timeout=PATIENCE_S,
    )  # fmt: skip
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]
    command = [server, "-D", str(data), *options]
    process = subprocess.Popen(command, user=user, cwd="/", stderr=subprocess.DEVNULL)
    url = f"postgresql+psycopg://gearshift@127.0.0.1:{port}/postgres"

    def answers() -> bool:
        books = Ledger(url, folder, "")
        try:
            books.keys()
        except LedgerUnusable:
            return False
        finally:
            books.close()
        return True

    try:
        until(answers, "PostgreSQL answers")
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # without waiting for connections
        process.wait(PATIENCE_S)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a ledger for a process of the given name; all of them the same empty database."""
    url = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    opened: list[Ledger] = []

    def open_(process: str) -> Ledger:
        opened.append(Ledger(url, tmp_path, process))
        return opened[-1]

    yield open_
    if url is not None:
        from gateway.trust import ledger_tables

        engine = opened[0]._opened()
        ledger_tables._METADATA.drop_all(engine)
    for one in opened:
        one.close()


def test_a_key_is_kept_as_it_was_made(ledger: Open) -> None:
    made = key("acme", requests_per_second=2.5, burst=7, concurrency=3, budget_usd_per_day=0.25)
    ledger("a").insert(made)
    other = key("other")
    ledger("a").insert(other)
    assert set(ledger("b").keys()) == {made, other}


def test_a_ledger_from_before_tenants_is_brought_up_to_date(ledger: Open) -> None:
    before, made = ledger("a"), key("acme")
    before.insert(made)
    with before._transaction() as connection:
        connection.execute(text("ALTER TABLE gearshift_keys DROP COLUMN tenant"))
    together = [threading.Thread(target=ledger(process).keys) for process in "bcde"]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    books = ledger("f")
    assert books.keys() == (made,)
    assert made.tenant == "default"
    gold = key("other", tenant="gold")
    books.insert(gold)
    assert set(books.keys()) == {made, gold}


def test_a_name_is_taken_while_its_key_is_in_use(ledger: Open) -> None:
    books = ledger("a")
    first = key("acme")
    books.insert(first)
    with pytest.raises(NameTaken):
        books.insert(key("acme"))
    assert books.revoke("acme", NOW)
    assert not books.revoke("acme", NOW)
    books.insert(key("acme"))
    every = books.keys()
    assert sorted(found.revoked or "" for found in every) == ["", NOW]


def test_limits_are_changed_by_name_or_id(ledger: Open) -> None:
    books = ledger("a")
    made = key("acme", burst=2)
    books.insert(made)
    assert books.limit("acme", Limits(concurrency=9), ("admin", "infer"), "gold")
    assert books.limit(made.id, Limits(concurrency=8), ("admin", "infer"), "gold")
    assert not books.limit("nobody", Limits(), ("infer",), "gold")
    (found,) = books.keys()
    assert found.limits == Limits(concurrency=8)
    assert found.scopes == ("infer", "admin")
    assert found.tenant == "gold"


def test_every_change_of_a_key_changes_the_version(ledger: Open) -> None:
    books = ledger("a")
    books.insert(key("acme"))
    seen = []
    for change in (
        lambda: None,
        lambda: books.insert(key("other")),
        lambda: books.limit("acme", Limits(), ("infer",), "gold"),
        lambda: books.revoke("other", NOW),
    ):
        change()
        seen.append(books.exchange(DAY, {}, None).version)
    assert len(set(seen)) == 4
    assert books.exchange(DAY, {}, seen[-1]).keys is None
    assert books.exchange(DAY, {}, seen[0]).keys is not None


def test_another_database_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, name in ((one, "acme"), (other, "evil")):
        maker = Ledger(None, folder, "maker")
        maker.insert(key(name))
        maker.close()
    books = Ledger(None, one, "p")
    seen = books.exchange(DAY, {}, None).version
    for left in one.iterdir():
        left.unlink()
    shutil.copyfile(other / FILE, one / FILE)
    (found,) = books.exchange(DAY, {}, seen).keys or ()
    assert found.name == "evil"
    books.close()


def test_what_processes_use_adds_up_by_day(ledger: Open) -> None:
    one, other = ledger("one"), ledger("other")
    made = key("acme")
    one.insert(made)
    one.exchange(DAY, {made.id: used(2, 0.5, running=1)}, None)
    view = other.exchange(DAY, {made.id: used(3, 0.25, running=4)}, None)
    assert view.totals == {made.id: Total(5, 0.75, running_elsewhere=1)}
    assert view.buckets == {made.id: (1.5, 1000.0)}
    assert one.exchange(DAY, {}, None).totals == {made.id: Total(5, 0.75, running_elsewhere=4)}
    assert one.exchange(NEXT_DAY, {}, None).totals == {made.id: Total(0, 0.0, 4)}
    other.forget_process()
    assert one.exchange(DAY, {}, None).totals == {made.id: Total(5, 0.75, 0)}


def test_nothing_is_lost_where_processes_write_at_once(ledger: Open) -> None:
    made = key("acme")
    ledger("first").insert(made)
    books = [ledger(f"process {number}") for number in range(4)]

    def work(one: Ledger) -> None:
        for _ in range(10):
            one.exchange(DAY, {made.id: used(1, 0.125)}, None)

    threads = [threading.Thread(target=work, args=(one,)) for one in books]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert books[0].exchange(DAY, {}, None).totals[made.id] == Total(40, 5.0, 0)


def test_a_lock_of_somebody_else_is_not_waited_out(
    ledger: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.trust.ledger._LOCK_S", 0.2)
    made = key("acme")
    ledger("first").insert(made)
    holder, other = ledger("holder"), ledger("other")
    with holder._transaction() as connection:
        sqlite = connection.dialect.name == "sqlite"
        connection.exec_driver_sql(
            "BEGIN EXCLUSIVE" if sqlite else "LOCK TABLE gearshift_keys, gearshift_spent"
        )
        with pytest.raises(LedgerUnusable, match=r"locked|timeout"):
            other.exchange(DAY, {made.id: used(1, 1.0)}, None)
    assert other.exchange(DAY, {made.id: used(1, 0.5)}, None).totals[made.id] == Total(1, 0.5, 0)


def test_before_the_first_key_nothing_is_made(tmp_path: Path) -> None:
    books = Ledger(None, tmp_path / "state", "p")
    assert books.exchange(DAY, {}, None).version == ""
    assert not books.revoke("acme", NOW)
    assert not (tmp_path / "state").exists()


def test_a_folder_that_cannot_be_looked_into_is_not_taken_for_one_without_keys(
    tmp_path: Path,
) -> None:
    books = Ledger(None, tmp_path / ("long" * 100), "p")  # the system says no, not "nothing there"
    for ask in (books.check, books.keys):
        with pytest.raises(LedgerUnusable, match="too long"):
            ask()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes what others own")
def test_what_root_makes_belongs_to_whom_the_folder_does(tmp_path: Path) -> None:
    os.chown(tmp_path, 65532, 65532)
    books = Ledger(None, tmp_path, "")
    books.insert(keys.create(keys.wanted({"name": "acme"}), NOW)[0])
    held = sqlite3.connect(tmp_path / FILE)  # keeps the journal's files there
    held.execute("SELECT * FROM gearshift_keys").fetchall()
    books.keys()
    assert {one.name for one in tmp_path.iterdir()} > {FILE}
    assert {one.stat().st_uid for one in tmp_path.iterdir()} == {65532}
    held.close()
