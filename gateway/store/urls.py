"""The URLs that a store may have, and the name that its copy is kept under."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_SEPARATOR = "://"


def is_url(text: str) -> bool:
    """Whether `text` is meant as a URL and not as a folder."""
    return _SEPARATOR in text


def checked(text: str) -> str:
    """`text`, if it is a URL that a store may have; without a slash at its end.

    Credentials are refused here, so that no log, page or error can ever hold them: they come from
    the environment, as each store's own library reads it.

    Raises:
        ValueError: it is not; says what is expected, and nothing of what came.
    """
    if not _URL.fullmatch(text) or "::" in text:
        raise ValueError("a folder, or a URL such as s3://bucket/models")
    parts = urlsplit(text)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "a URL without user, password and query; credentials come from the environment"
        )
    return text.rstrip("/")


def shown(text: str) -> str:
    """`text` as it may be shown, also where it was refused: without user, password and query."""
    plain = re.sub(r"[?#].*", "", text, flags=re.DOTALL)
    return re.sub(r"://[^/]*@", "://***@", plain)


def folder_name(url: str) -> str:
    """The name of the folder that a store's copy is kept in: legible, and its alone."""
    legible = re.sub(r"[^a-z0-9]+", "-", url.lower()).strip("-")[:60].strip("-")
    return f"{legible}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
