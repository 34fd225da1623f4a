"""The ledger: keys and what they used, in a database that outlives the process and is shared.

SQLite in the state folder by default, PostgreSQL by URL. Only `Ledger` touches the database, on
whatever thread calls it: never the event loop's. Processes tell each other through it what they
admitted: each calls `exchange` once a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.trust import ledger_file
from gateway.trust.keys import SCOPES, Key
from router.quota import Limits

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

FILE = "gearshift.db"

# How long a lock of another process is waited for, and a database across a network, in seconds.
_LOCK_S = 2
_CONNECT_S = 3
# A process that has not told anything for so many exchanges of another is gone.
_GONE_AFTER = 10


class LedgerUnusable(Exception):
    """The database cannot be read or written now; the message says why."""


class LedgerForbidden(LedgerUnusable):
    """The database is there, and this process's user may not use it: waiting does not mend it."""


class NameTaken(Exception):
    """A key of this name may be used already."""


@dataclass(frozen=True, slots=True)
class Used:
    """What one key used since it was told last, and how its bucket stands.

    Attributes:
        bucket_level: tokens, at `bucket_at`, in Unix seconds.
    """

    requests: int
    usd: float
    running: int
    bucket_level: float
    bucket_at: float


@dataclass(frozen=True, slots=True)
class Total:
    """What one key used today, all processes together, and what runs in the others."""

    requests: int = 0
    usd: float = 0.0
    running_elsewhere: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """What the database says.

    Attributes:
        version: changes whenever a key does, and with the database; empty without keys.
        keys: all there ever were, revoked ones too; None where `version` is still that asked about.
        totals: by key's id.
        buckets: level and Unix time by key's id; only beside `keys`.
    """

    version: str
    keys: tuple[Key, ...] | None
    totals: Mapping[str, Total] = field(default_factory=dict)
    buckets: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Ledger:
    """The database behind a URL, which is opened on first need.

    Args:
        url: SQLAlchemy's; None for the file `gearshift.db` in `folder`, which is made when the
            first key is.
        process: tells this process from the others.
    """

    def __init__(self, url: str | None, folder: Path, process: str) -> None:
        self._file = folder / FILE if url is None else None
        self._url = url or f"sqlite:///{folder / FILE}"
        self._process = process
        self._engine: Engine | None = None
        self._was_there = self._was_made = False
        self._beat = 0
        self._heard: dict[str, tuple[int, int]] = {}

    def exchange(self, day: str, used: Mapping[str, Used], version: str | None) -> View:
        """Write what this process used, read what all of them did.

        Either all of `used` is written or none of it.

        Args:
            version: of the keys that the caller knows.

        Raises:
            LedgerUnusable: nothing was written.
        """
        if not self._is_there():
            return View("", ())
        if not self._was_made:
            self._make()  # a database that was named is there for this; a file may be an older one
        from gateway.trust import ledger_tables as tables

        self._beat += 1
        with self._transaction() as connection:
            for key, one in used.items():
                tables.add(connection, self._process, self._beat, day, key, one)
            found = tables.version(connection)
            keys = None if found == version else tables.keys(connection)
            buckets = {} if keys is None else tables.buckets(connection)
            spent = tables.spent(connection, day)
            running = self._alive(connection, tables.running(connection))
        everyone = spent.keys() | running.keys()
        totals = {key: Total(*spent.get(key, (0, 0.0)), running.get(key, 0)) for key in everyone}
        return View(found, keys, totals, buckets)

    def check(self) -> None:
        """Whether this process's user may use the file, where there is one.

        Raises:
            LedgerForbidden: it may not, or may not even tell.
        """
        if self._file is not None and self._is_there():
            try:
                ledger_file.check(self._file)
            except PermissionError as error:
                raise LedgerForbidden(str(error)) from error

    def keys(self) -> tuple[Key, ...]:
        """Every key there ever was.

        Raises:
            LedgerUnusable: it cannot be read.
        """
        return self.exchange("", {}, None).keys or ()

    def insert(self, key: Key) -> None:
        """Keep a new key.

        Raises:
            NameTaken: by a key that was not revoked.
            LedgerUnusable: it was not written.
        """
        from gateway.trust import ledger_tables as tables

        self._make()
        with self._transaction() as connection:
            if any(k.name == key.name and k.revoked is None for k in tables.keys(connection)):
                raise NameTaken(f"a key named {key.name!r} is in use; revoke it, or take another")
            tables.insert(connection, key)

    def revoke(self, name: str, when: str) -> bool:
        """Let nobody in by the key of this name, or id, any more.

        Returns:
            Whether there was one in use.

        Raises:
            LedgerUnusable: it was not written.
        """
        return self._change(name, {"revoked": when})

    def limit(self, name: str, limits: Limits, scopes: tuple[str, ...], tenant: str) -> bool:
        """Give the key of this name, or id, other limits and scopes, and another tenant.

        Returns:
            Whether there is one in use.

        Raises:
            LedgerUnusable: it was not written.
        """
        return self._change(
            name,
            {
                "requests_per_second": limits.requests_per_second,
                "burst": limits.burst,
                "concurrency": limits.concurrency,
                "budget_usd_per_day": limits.budget_usd_per_day,
                "scopes": " ".join(s for s in SCOPES if s in scopes),
                "tenant": tenant,
            },
        )

    def forget_process(self) -> None:
        """Nothing of this process runs any more.

        Raises:
            LedgerUnusable: it was not written.
        """
        if self._engine is None:
            return
        from gateway.trust import ledger_tables as tables

        with self._transaction() as connection:
            tables.forget(connection, self._process)

    def close(self) -> None:
        """Close what is open."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _change(self, name: str, values: dict[str, Any]) -> bool:
        if not self._is_there():
            return False
        from gateway.trust import ledger_tables as tables

        with self._transaction() as connection:
            return tables.change(connection, name, values)

    def _alive(
        self, connection: Connection, rows: list[tuple[str, str, int, int]]
    ) -> dict[str, int]:
        """What runs in other processes by key. A process is judged by whether it still tells."""
        from gateway.trust import ledger_tables as tables

        running: dict[str, int] = {}
        present = set()
        for process, key, count, beat in rows:
            if process == self._process:
                continue
            present.add(process)
            heard, at = self._heard.get(process, (-1, 0))
            if beat > heard:
                self._heard[process] = (beat, self._beat)
            elif self._beat - at > _GONE_AFTER:
                tables.forget(connection, process)
                continue
            running[key] = running.get(key, 0) + count
        self._heard = {k: v for k, v in self._heard.items() if k in present}
        return running

    def _make(self) -> None:
        """The folder and the tables, where they are missing."""
        from sqlalchemy.exc import SQLAlchemyError

        from gateway.trust import ledger_tables as tables

        self._is_there()
        try:
            if self._file is not None:
                ledger_file.begin(self._file)
            tables.create(self._opened())
            self._was_made = True
        except (OSError, SQLAlchemyError) as error:
            raise LedgerUnusable(f"{self._where()}: {_first_line(error)}") from error

    def _is_there(self) -> bool:
        """Whether there is a database. One that was there once may not be begun anew.

        Raises:
            LedgerUnusable: it was there, and is gone; or its folder does not say.
        """
        try:
            found = self._file is None or self._file.exists()
        except OSError as error:  # a folder that this user may not look into
            raise LedgerForbidden(f"{self._file}: {error.strerror}") from error
        if self._was_there and not found:
            raise LedgerUnusable(f"{self._file} is gone")
        self._was_there = found
        return found

    def _opened(self) -> Engine:
        if self._engine is None:
            from sqlalchemy import create_engine, event
            from sqlalchemy.pool import NullPool

            if self._url.startswith("sqlite"):
                # A connection for each exchange: a file that was replaced is found again.
                self._engine = create_engine(
                    self._url, poolclass=NullPool, connect_args={"timeout": _LOCK_S}
                )
                event.listen(self._engine, "connect", _shared_by_processes)
            else:
                waits = {
                    "connect_timeout": _CONNECT_S,
                    "tcp_user_timeout": int(1000 * _CONNECT_S),
                    "options": f"-c statement_timeout={int(1000 * _LOCK_S)}",
                }
                self._engine = create_engine(
                    self._url, pool_size=1, pool_pre_ping=True, connect_args=waits
                )
        return self._engine

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._opened().begin() as connection:
                yield connection
        except (OSError, ImportError, SQLAlchemyError) as error:
            raise LedgerUnusable(f"{self._where()}: {_first_line(error)}") from error

    def _where(self) -> str:
        if self._file is not None:
            return str(self._file)
        from sqlalchemy import make_url

        return make_url(self._url).render_as_string(hide_password=True)


def _shared_by_processes(connection: Any, _: Any) -> None:
    # Readers do not wait for a writer then.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().split("\n")[0]
