"""What the standard variables of the environment say of tracing, looked at before it begins.

OpenTelemetry's SDK goes on without what it cannot read, with a line in the log at most. Here it is
refused by name, so that nobody waits for traces that never come. No message repeats what may be a
secret. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/,
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

import math
import os
import re
import ssl
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from gateway.settings import SettingsError

QUEUE, BATCH, DELAY = (
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
)
# The numbers that the variables may say: the default and the least.
_NUMBERS = {QUEUE: (2048, 1), BATCH: (512, 1), DELAY: (5000, 1)}

# What they may say beside numbers; the first is the default.
_WORDS = {
    "OTEL_TRACES_EXPORTER": ("otlp",),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf",),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("http/protobuf",),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("none", "gzip", "deflate"),
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": ("none", "gzip", "deflate"),
    "OTEL_TRACES_SAMPLER": (
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "always_on",
        "always_off",
        "traceidratio",
    ),
}
_RATIO = "OTEL_TRACES_SAMPLER_ARG"
# A name as HTTP has them, and a value, which may be percent-encoded (W3C Baggage).
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=[^\"\\;]*")


def numbers() -> dict[str, int]:
    """The numbers that the environment gives, by the names of their variables.

    Raises:
        SettingsError: something in it is none, or asks for what is not offered.
    """
    for name, words in _WORDS.items():
        word = os.environ.get(name, "").strip().lower() or words[0]
        if word not in words:
            _refuse(name, ", ".join(words), word)
    _ratio()
    _endpoint(*_exporters("ENDPOINT"))
    _timeout(*_exporters("TIMEOUT"))
    _headers(*_exporters("HEADERS"))
    _certificates()
    return {name: _whole(name, *about) for name, about in _NUMBERS.items()}


def _exporters(what: str) -> tuple[str, str]:
    """The variable that counts, that of traces before that of all signals, and what it says."""
    own, shared = f"OTEL_EXPORTER_OTLP_TRACES_{what}", f"OTEL_EXPORTER_OTLP_{what}"
    name = own if os.environ.get(own) else shared
    return name, os.environ.get(name, "")


def _whole(name: str, default: int, least: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal() or int(text) < least:
        _refuse(name, f"a whole number from {least}", text)
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _ratio() -> None:
    text = os.environ.get(_RATIO, "").strip()
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if text and sampler.endswith("traceidratio") and not 0 <= _number(text) <= 1:
        _refuse(_RATIO, "a number from 0 to 1", text)


def _endpoint(name: str, text: str) -> None:
    if not text:
        return
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # no port, or no address
        usable = False
    if not usable:
        # A password may stand before an @, a token behind a question mark.
        shown = text.rpartition("@")[2].partition("?")[0]
        _refuse(name, "a URL such as http://127.0.0.1:4318", shown)


def _timeout(name: str, text: str) -> None:
    if text and not 0 < _number(text) < math.inf:
        _refuse(name, "seconds, more than 0", text)


def _headers(name: str, text: str) -> None:
    for number, header in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        value = unquote(header.partition("=")[2])
        if not (_HEADER.fullmatch(header) and value.isprintable() and value.isascii()):
            # Not what it says: keys to collectors stand there.
            raise SettingsError(
                f"{name}: expected name=value, several with commas between them; "
                f"number {number} is none"
            )


def _certificates() -> None:
    """Those that it trusts, and the one that it shows."""
    name, trusted = _exporters("CERTIFICATE")
    if trusted and not Path(trusted).is_dir():
        try:
            ssl.create_default_context(cafile=trusted)
        except OSError as error:  # SSLError is one
            _refuse(name, "a file of certificates", trusted, error)
    name, shown = _exporters("CLIENT_CERTIFICATE")
    key_name, key = _exporters("CLIENT_KEY")
    if key and not shown:
        raise SettingsError(f"{key_name}: expected a certificate beside it, in {name}")
    if shown:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # Without a password it would ask for one, at a terminal that may not be there.
            context.load_cert_chain(shown, key or None, password="")
        except OSError as error:
            _refuse(name, f"a certificate and its key ({key_name})", shown, error)


def _refuse(name: str, expected: str, came: str, why: Exception | None = None) -> NoReturn:
    because = "" if why is None else f" ({why})"
    raise SettingsError(f"{name}: expected {expected}, got {came!r}{because}") from why
