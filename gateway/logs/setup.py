"""The log of this process: where its lines go and what they look like."""

from __future__ import annotations

import logging
import sys

from gateway.logs.lines import JsonLines, TextLines
from gateway.logs.sink import Sink
from gateway.settings import Settings, SettingsError

# Below a warning, only what we say ourselves, and our HTTP server: what other libraries say to
# those who debug them may hold what they were given, such as a password or a header.
_OURS = ("gateway", "router", "uvicorn")


class Log(logging.Handler):
    """Writes records to a sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self.sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            self.sink.write(line.encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)


def start(settings: Settings, level: str, worker: int | None = None) -> None:
    """Log from now on as the settings say.

    Args:
        worker: the number of this process, where there are several.

    Raises:
        SettingsError: the file cannot be opened.
    """
    handler = Log(opened("log_file", settings))
    lines = JsonLines if settings.log_format == "json" else TextLines
    handler.setFormatter(lines(worker))
    handler.addFilter(_may_be_said)
    logging.basicConfig(level=level.upper(), handlers=[handler])


def opened(name: str, settings: Settings) -> Sink:
    """The sink of the setting `name`, which is a file or None.

    Raises:
        SettingsError: it cannot be opened.
    """
    path = getattr(settings, name)
    try:
        return Sink(path)
    except OSError as error:
        raise SettingsError(f"{name}: {path} cannot be opened: {error.strerror}") from error


def reopen() -> None:
    """Open the log's file again, which was moved away."""
    sys.stderr.flush()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Log):
            handler.sink.reopen()


def _may_be_said(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OURS
