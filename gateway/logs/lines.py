"""A line of the log, of text or of JSON. The keys of the latter are `docs/how-to/logs.md`'s."""

from __future__ import annotations

import logging
import re
import time
from functools import lru_cache
from typing import Any

import orjson

# What a record says of the request it is about: see `gateway.recording.origins.logged`.
ABOUT = ("request_id", "trace_id")

_PLAIN = re.compile(r"[^\s\"=\\]+")


def rfc3339(unix_s: float) -> str:
    """UTC, to the millisecond."""
    whole = int(unix_s)
    return f"{_second(whole)}.{int((unix_s - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(unix_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s))


def as_json(members: dict[str, Any]) -> bytes:
    """One line."""
    return orjson.dumps(members, default=str, option=orjson.OPT_APPEND_NEWLINE)


def as_text(members: dict[str, Any]) -> bytes:
    """One line of key=value, the values quoted as in JSON where they are no plain words."""
    return (" ".join(f"{key}={_word(value)}" for key, value in members.items()) + "\n").encode()


def _word(value: Any) -> str:
    # By far the most are of these two kinds.
    if type(value) is str and _PLAIN.fullmatch(value):
        return value
    if type(value) is float or type(value) is int:
        return repr(value)
    return orjson.dumps(value, default=str).decode()


class JsonLines(logging.Formatter):
    """Records as JSON, one line each.

    Args:
        worker: the number of this process, where there are several.
    """

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        members: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
        }
        for name in ABOUT:
            value = getattr(record, name, None)
            if value is not None:
                members[name] = value
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        # Surrogates, such as from a path that is no UTF-8, are no JSON.
        text = {k: _clean(v) if isinstance(v, str) else v for k, v in members.items()}
        return orjson.dumps(text, default=str).decode()


class TextLines(logging.Formatter):
    """Records as text, for eyes.

    Args:
        worker: the number of this process, where there are several.
    """

    def __init__(self, worker: int | None) -> None:
        who = "" if worker is None else f"worker-{worker} "
        super().__init__(f"%(asctime)s {who}%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        name = getattr(record, ABOUT[0], None)
        return line if name is None else f"{line} ({ABOUT[0]} {name})"


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
