"""The ledger's tables, and each statement on them. Times are UTC; days read 2026-01-31."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    inspect,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn

from gateway.trust.keys import DEFAULT_TENANT, Key, Scope
from gateway.trust.ledger import Used
from router.quota import Limits

_METADATA = MetaData()

KEYS = Table(
    "gearshift_keys",
    _METADATA,
    Column("id", String(12), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("requests_per_second", Float),
    Column("burst", Integer),
    Column("concurrency", Integer),
    Column("budget_usd_per_day", Float),
    Column("created", String(32), nullable=False),
    Column("revoked", String(32)),
    # Counts the changes of this key.
    Column("version", Integer, nullable=False),
    # Last, as it is in a table that was made without it.
    Column("tenant", String(64), nullable=False, server_default=DEFAULT_TENANT),
)
SPENT = Table(
    "gearshift_spent",
    _METADATA,
    Column("key", String(12), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("usd", Float, nullable=False),
)
BUCKETS = Table(
    "gearshift_buckets",
    _METADATA,
    Column("key", String(12), primary_key=True),
    Column("level", Float, nullable=False),
    Column("at", Float, nullable=False),
)
RUNNING = Table(
    "gearshift_running",
    _METADATA,
    Column("process", String(16), primary_key=True),
    Column("key", String(12), primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("beat", Integer, nullable=False),
)


def create(engine: Engine) -> None:
    """Make the tables that are missing, and the column that older ones lack."""
    _METADATA.create_all(engine)
    if not _has_tenant(engine):
        column = CreateColumn(KEYS.c.tenant).compile(dialect=engine.dialect)
        try:
            with engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {KEYS.name} ADD COLUMN {column}"))
        except DBAPIError:
            if not _has_tenant(engine):  # else another process was first
                raise


def _has_tenant(engine: Engine) -> bool:
    return any(column["name"] == "tenant" for column in inspect(engine).get_columns(KEYS.name))


def version(connection: Connection) -> str:
    """Of all keys together; empty while there is none.

    Keys' ids are random, so another database has others, though as much was changed in it.
    """
    column = KEYS.c
    counts = (func.count(), func.sum(column.version), func.min(column.id), func.max(column.id))
    count, *found = connection.execute(select(*counts).select_from(KEYS)).one()
    return ":".join(map(str, (count, *found))) if count else ""


def keys(connection: Connection) -> tuple[Key, ...]:
    """Every key, the oldest first."""
    rows = connection.execute(select(KEYS).order_by(KEYS.c.created, KEYS.c.id))
    return tuple(
        Key(
            row.id,
            row.name,
            row.digest,
            cast("tuple[Scope, ...]", tuple(row.scopes.split())),
            Limits(row.requests_per_second, row.burst, row.concurrency, row.budget_usd_per_day),
            row.created,
            row.revoked,
            row.tenant,
        )
        for row in rows
    )


def insert(connection: Connection, key: Key) -> None:
    """Add a key."""
    values = key.as_json() | {
        "digest": key.digest,
        "scopes": " ".join(key.scopes),
        "version": 1,
    }
    connection.execute(KEYS.insert().values(values))


def change(connection: Connection, name: str, values: dict[str, Any]) -> bool:
    """Change the key in use that has this name or id; whether there is one."""
    statement = (
        update(KEYS)
        .where(or_(KEYS.c.name == name, KEYS.c.id == name), KEYS.c.revoked.is_(None))
        .values(values | {"version": KEYS.c.version + 1})
    )
    return bool(connection.execute(statement).rowcount)


def add(connection: Connection, process: str, beat: int, day: str, key: str, used: Used) -> None:
    """Add what a process used of a key to what all of them did."""
    added = {"requests": SPENT.c.requests + used.requests, "usd": SPENT.c.usd + used.usd}
    row = {"key": key, "day": day, "requests": used.requests, "usd": used.usd}
    _upsert(connection, SPENT, row, added)
    bucket = {"level": used.bucket_level, "at": used.bucket_at}
    _upsert(connection, BUCKETS, {"key": key, **bucket}, bucket)
    now = {"requests": used.running, "beat": beat}
    _upsert(connection, RUNNING, {"process": process, "key": key, **now}, now)


def spent(connection: Connection, day: str) -> dict[str, tuple[int, float]]:
    """Requests and USD of that day by key."""
    rows = connection.execute(select(SPENT).where(SPENT.c.day == day))
    return {row.key: (row.requests, row.usd) for row in rows}


def buckets(connection: Connection) -> dict[str, tuple[float, float]]:
    """Level and Unix time of every key's bucket."""
    return {row.key: (row.level, row.at) for row in connection.execute(select(BUCKETS))}


def running(connection: Connection) -> list[tuple[str, str, int, int]]:
    """Process, key, requests that run, and how often the process has told so."""
    rows = connection.execute(select(RUNNING))
    return [(row.process, row.key, row.requests, row.beat) for row in rows]


def forget(connection: Connection, process: str) -> None:
    """Nothing of that process runs any more."""
    connection.execute(delete(RUNNING).where(RUNNING.c.process == process))


def _upsert(
    connection: Connection, table: Table, row: dict[str, Any], changed: dict[str, Any]
) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(row)
    primary = [column.name for column in table.primary_key.columns]
    connection.execute(statement.on_conflict_do_update(index_elements=primary, set_=changed))
