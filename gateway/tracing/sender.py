"""Sends spans to a collector: OTLP over HTTP, https://opentelemetry.io/docs/specs/otlp/#otlphttp.

What is refused for now is sent again, later each time, until the time for it is over; whatever else
is refused is lost. Proxies are taken from the environment.
"""

from __future__ import annotations

import gzip
import logging
import random
import threading
import time
import zlib
from http import HTTPStatus
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies

from gateway.about import VERSION
from gateway.tracing.environment import Destination

_LOG = logging.getLogger(__name__)

_FOR_NOW = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_FIRST_PAUSE_S = 0.5


class Sender:
    """Sends on one thread; `stop` is called on another."""

    def __init__(self, destination: Destination) -> None:
        self._to = destination
        self._stopped = threading.Event()
        self._session = requests.Session()
        self._session.headers.update(
            {
                "content-type": "application/x-protobuf",
                "user-agent": f"gearshift/{VERSION}",
                **destination.headers,
            }
        )
        if destination.compression != "none":
            self._session.headers["content-encoding"] = destination.compression
        if destination.certificate:
            shown = destination.certificate, destination.key
            self._session.cert = shown if destination.key else destination.certificate
        if destination.trusted:
            self._session.verify = destination.trusted
        # Looked up once: with each request it would take as long as the request itself.
        self._session.trust_env = False
        self._session.proxies.update(get_environ_proxies(destination.url))

    def send(self, message: bytes) -> bool:
        """Send an `ExportTraceServiceRequest`; whether it was taken."""
        if self._to.compression == "gzip":
            # Most of it repeats, so that the least effort is nearly as good as the most.
            message = gzip.compress(message, 1)
        elif self._to.compression == "deflate":
            message = zlib.compress(message, 1)
        until_s = time.monotonic() + self._to.timeout_s
        pause_s = 0.0  # at first: a connection that was kept may have been closed over there
        while True:
            why, again_s = self._post(message, max(until_s - time.monotonic(), 0.001))
            if not why:
                return True
            if again_s is None:
                break
            wait_s = again_s or pause_s * random.uniform(0.8, 1.2)
            pause_s = 2 * pause_s or _FIRST_PAUSE_S
            if time.monotonic() + wait_s > until_s or self._stopped.wait(wait_s):
                break
        _LOG.error("spans are lost: %s: %s", _shown(self._to.url), why)
        return False

    def stop(self) -> None:
        """Try no more; what is on its way may still arrive."""
        self._stopped.set()

    def _post(self, message: bytes, timeout_s: float) -> tuple[str, float | None]:
        """Why it was not taken, empty where it was; and after what time it may be sent again: 0
        where that was not said, None for never."""
        try:
            answer = self._session.post(
                self._to.url, data=message, timeout=timeout_s, allow_redirects=False
            )
        except requests.ConnectionError as error:
            return f"it cannot be reached ({_kind(error)})", 0.0
        except requests.RequestException as error:
            return f"it did not answer ({_kind(error)})", None
        if answer.ok and answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
            return "", None
        said = f"it answered {answer.status_code}"
        if answer.status_code not in _FOR_NOW:
            return said, None
        after = answer.headers.get("retry-after", "")
        return said, float(after) if after.isdecimal() else 0.0


def _kind(error: Exception) -> str:
    # Not its words, in which the address stands with what may be a secret.
    return type(error).__name__


def _shown(url: str) -> str:
    """Without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
