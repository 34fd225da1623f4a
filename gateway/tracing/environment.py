"""What the standard variables of the environment say of tracing, looked at before it begins.

OpenTelemetry's SDK goes on without what it cannot read, with a line in the log at most. Here it is
refused by name, so that nobody waits for traces that never come; each is read as the SDK reads it.
No message repeats what may be a secret.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/,
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

import math
import os
import re
import ssl
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from gateway.settings import SettingsError

QUEUE, BATCH, DELAY = (
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
)
# The numbers that the variables may say, by their defaults; the most is what any SDK can read.
_NUMBERS = {QUEUE: 2048, BATCH: 512, DELAY: 5000}
_MOST = (1 << 31) - 1

_SAMPLER, _RATIO = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
_SAMPLERS = (
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "always_on",
    "always_off",
    "traceidratio",
)
_TRIED_FOR_S = 3600
# The names of a URL's host, once they are encoded, or one address; nothing else connects.
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._~%-]+)?", re.ASCII)
_NO_URL = re.compile(r"[\s\x00-\x1f\x7f]")
# A name as HTTP has them, and a value, which may be percent-encoded (W3C Baggage).
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEADER = re.compile(_TOKEN + r"[ \t]*=[\x20-\x7e]*", re.ASCII)
_NAME = re.compile(_TOKEN, re.ASCII)
_UNUSABLE = re.compile(r"[\"\\;]")
# What the exporter says of its own messages.
_ITS_OWN = ("content-length", "content-type", "content-encoding", "transfer-encoding")


class Limits(NamedTuple):
    """How much a span may hold; None for any.

    Attributes:
        attributes: how many.
        letters: of an attribute's text.
        links: how many.
    """

    attributes: int | None
    letters: int | None
    links: int | None


def numbers() -> dict[str, int]:
    """The numbers that the environment gives, by the names of their variables.

    Raises:
        SettingsError: something in it is none, or asks for what is not offered.
    """
    _word("OTEL_TRACES_EXPORTER", os.environ.get("OTEL_TRACES_EXPORTER", "").strip(), "otlp")
    name, text = _exporters("PROTOCOL")
    _word(name, text.strip(), "http/protobuf")
    name, text = _exporters("COMPRESSION")
    _word(name, text.strip(), "none", "gzip", "deflate")
    _sampler()
    _resource()
    _endpoint()
    _timeout(*_exporters("TIMEOUT"))
    _headers(*_exporters("HEADERS"))
    _certificates()
    return {name: _whole(name, default, 1) for name, default in _NUMBERS.items()}


def limits() -> Limits:
    """What the environment says of a span's size.

    Raises:
        SettingsError: a limit is no number.
    """
    attributes = _limit("OTEL_ATTRIBUTE_COUNT_LIMIT", 128)
    letters = _limit("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", None)
    return Limits(
        _limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", attributes),
        _limit("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", letters),
        _limit("OTEL_SPAN_LINK_COUNT_LIMIT", 128),
    )


def _exporters(what: str) -> tuple[str, str]:
    """The variable that counts, that of traces before that of all signals, and what it says."""
    own, shared = f"OTEL_EXPORTER_OTLP_TRACES_{what}", f"OTEL_EXPORTER_OTLP_{what}"
    name = own if os.environ.get(own) else shared
    return name, os.environ.get(name, "")


def _word(name: str, word: str, *words: str) -> None:
    if word and word.lower() not in words:
        _refuse(name, ", ".join(words), word)


def _whole(name: str, default: int, least: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    number = _number(text) if text.isdecimal() else math.nan
    if not least <= number <= _MOST:
        _refuse(name, f"a whole number from {least} to {_MOST}", text)
    return int(text)


def _limit(name: str, default: int | None) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return default
    return _whole(name, 0, 0) if text.strip() else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _sampler() -> None:
    # The SDK takes no blanks off.
    sampler, ratio = os.environ.get(_SAMPLER, ""), os.environ.get(_RATIO, "")
    _word(_SAMPLER, sampler, *_SAMPLERS)
    if ratio and sampler.lower().endswith("traceidratio") and not 0 <= _number(ratio) <= 1:
        _refuse(_RATIO, "a number from 0 to 1", ratio)


def _resource() -> None:
    name = "OTEL_SERVICE_NAME"
    if not _encodable(os.environ.get(name, "")):
        raise SettingsError(f"{name}: expected text in UTF-8")
    name = "OTEL_RESOURCE_ATTRIBUTES"
    for number, pair in enumerate(os.environ.get(name, "").split(","), 1):
        key, equals, value = pair.partition("=")
        if pair.strip() and not (key.strip() and equals and _encodable(key + value)):
            raise SettingsError(
                f"{name}: expected name=value, several with commas between them; "
                f"number {number} is none"
            )


def _encodable(text: str) -> bool:
    # Bytes that are no UTF-8 come as halves of letters, which no message can hold.
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _endpoint() -> None:
    name, text = _exporters("ENDPOINT")
    if not text:
        return
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").encode("idna").decode() if parts.port != 0 else ""
        usable = parts.scheme in ("http", "https") and _HOST.fullmatch(host) is not None
    except ValueError:  # no port, or no address, or no name that can be looked up
        usable = False
    if not usable or _NO_URL.search(text):
        _refuse(name, "a URL such as http://127.0.0.1:4318", _shown(text))
    if "_TRACES_" not in name and (parts.query or parts.fragment):
        expected = "a URL that can be followed by /v1/traces, with no ? and no # in it"
        _refuse(name, expected, _shown(text))


def _shown(url: str) -> str:
    """Without what may be a secret: a password before an @, a token behind a question mark."""
    return "one with an @" if "@" in url else re.split(r"[?#]", url)[0]


def _timeout(name: str, text: str) -> None:
    if text and not 0 < _number(text) <= _TRIED_FOR_S:
        _refuse(name, f"seconds, more than 0 and at most {_TRIED_FOR_S}", text)


def _headers(name: str, text: str) -> None:
    for number, header in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        if _HEADER.fullmatch(header) and not _UNUSABLE.search(header.partition("=")[2]):
            ((said, value),) = parse_env_headers(header, liberal=True).items()
            if said in _ITS_OWN:
                raise SettingsError(f"{name}: expected none of {', '.join(_ITS_OWN)}; got {said}")
            if _NAME.fullmatch(said) and value.isprintable() and value.isascii():
                continue
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
