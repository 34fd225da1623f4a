"""What a setting's value may be, beyond what its Python type says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from gateway.store import urls
from router import policies
from router.constraints import floor
from router.errors import InvalidRequest


def _number(raw: object) -> object:
    return int(raw) if isinstance(raw, str) and raw.strip().isdecimal() else raw


def _table(raw: object) -> object:
    try:
        return json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        return raw


def _port(raw: object) -> object:
    if raw is None or raw == "off":
        return raw
    try:
        port = int(str(raw))
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise ValueError("a port from 0 to 65535, or off")
    return port


def _database(url: str) -> str:
    if re.match(r"(sqlite|postgresql)(\+[a-z0-9]+)?://", url) is None:
        raise ValueError("a URL of SQLite or PostgreSQL")
    return url


def without_password(url: object) -> str:
    """A database's URL as it may be shown."""
    user, at, host = str(url).rpartition("@")
    return re.sub(r"(//[^:/@]*):.*", r"\1:***", user) + at + host


def _models(raw: object) -> object:
    if isinstance(raw, str):
        return urls.checked(raw) if urls.is_url(raw) else Path(raw)
    return raw


def _floor(raw: float | str) -> float | str:
    try:
        floor("default_min_accuracy", raw)
    except InvalidRequest as error:
        raise ValueError(f"Input should be {error.members['expected']}") from error
    return raw


def _policy(name: str) -> str:
    try:
        policies.get(name)
    except ValueError as error:
        raise ValueError(f"Input should be one of {', '.join(policies.names())}") from error
    return name


# A port beside the main one: 0 for a free one.
OwnPort = Annotated[int | Literal["off"] | None, BeforeValidator(_port)]
# A share or a percentage of accuracy, as requests state one.
FloorText = Annotated[float | str, AfterValidator(_floor)]
PolicyName = Annotated[str, AfterValidator(_policy)]
# A folder stays a path; a URL is text, since a path would fold its slashes.
Models = Annotated[Path | str, BeforeValidator(_models)]
Database = Annotated[str, AfterValidator(_database)]
# The environment holds text, where a table is JSON, and a Literal of numbers takes no text.
Number = BeforeValidator(_number)
Table = BeforeValidator(_table)
