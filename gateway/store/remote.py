"""The store at a URL, by fsspec: what lies there, and its bytes. The only file that knows fsspec.

fsspec has a file system for each scheme: S3, Google Cloud Storage, HTTP, the local disk, memory,
and many more by packages of their own. Each finds its credentials in the environment.

Nothing that the store says becomes a path on this machine, but names of models, variants and files
that match the patterns of theirs; everything else in there is not looked at.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gateway.store.cache import SAMPLE_FILE
from gateway.store.plan import Key
from gateway.store.urls import shown
from router.card import NAME_PATTERN

_Answer = TypeVar("_Answer")

_NAME = re.compile(NAME_PATTERN)
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

# One request lists everything under a prefix there; folder by folder it takes one for each.
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs"})
_WEB = frozenset({"http", "https"})
_LOCAL = frozenset({"file", "memory"})
# The extra that brings what reads them; others have packages of their own.
_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "http": "objectstore",
    "https": "objectstore",
    "file": "objectstore",
    "memory": "objectstore",
}
_MOST_OBJECTS = 100_000
_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20
_CONNECT_S, _READ_S = 10.0, 60.0
_LONGEST_REASON = 200
# What each of them calls the thing that changes with an object's content.
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "updated", "mtime", "created", "modified")
# At the level debug these write down what they send, signatures and all.
_TALKATIVE = ("aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "s3fs", "urllib3")


class StoreAway(Exception):
    """The store, or one object of it, cannot be read now. Says why, without a secret."""


class UrlUnusable(Exception):
    """No store can be had at such a URL here: its scheme is unknown, or a package is missing."""


class TooMuch(Exception):
    """An object holds more than it may."""


class Stopped(Exception):
    """The copy was given up, since the process ends."""


@dataclass(frozen=True, slots=True)
class Object:
    """A file of a variant in the store.

    Attributes:
        size: in bytes; None where the store does not say.
        stamp: another one for other content; empty where the store does not say.
    """

    path: str
    size: int | None
    stamp: str


Files = Mapping[str, Object]


@dataclass(frozen=True, slots=True)
class Listing:
    """What the store holds.

    Attributes:
        variants: every file of every variant, by model and variant.
        samples: by model, the request that a build leaves beside the variants.
    """

    variants: Mapping[Key, Files]
    samples: Files


class Remote:
    """The store at `url`, which `gateway.store.urls.checked` has passed. Methods may be called by
    several threads.

    Raises:
        UrlUnusable: there is nothing here that reads such URLs.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        scheme = url.partition("://")[0]
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            from fsspec import get_filesystem_class
            from fsspec.asyn import AsyncFileSystem

            kind = get_filesystem_class(scheme)
            # Kept listings would hide what changes, and an instance is shared with whoever asks.
            self._options: dict[str, Any] = {
                "use_listings_cache": False,
                "skip_instance_cache": True,
                **_options(scheme),
            }
        except ImportError as error:
            raise UrlUnusable(_missing(scheme, error)) from error
        except ValueError as error:  # there is no such scheme
            raise UrlUnusable(f"{shown(url)}: {_reason(error)}") from error
        self._flat = scheme in _FLAT
        self._web = scheme in _WEB
        self._fs: Any = None
        self._root = ""
        # Others may hold one connection, which is for one thread at a time, and may be lost; the
        # asynchronous ones (S3, Google, Azure, HTTP) hold many, and make them anew themselves.
        self._own_connection = scheme not in _LOCAL and not issubclass(kind, AsyncFileSystem)
        self._turn: AbstractContextManager[object] = (
            threading.RLock() if self._own_connection else nullcontext()
        )

    def _connect(self) -> None:
        """Some libraries reach for their server as soon as they are asked for it, so not before
        something is to be read: one that is away is told of like any other."""
        if self._fs is None:
            from fsspec.core import url_to_fs

            self._fs, root = url_to_fs(self.url, **self._options)
            self._root = root.rstrip("/")

    def listing(self) -> Listing:
        """Everything there is.

        Raises:
            StoreAway: the store cannot be read, or not to its end.
        """
        return self._by_connection("it", self._listed)

    def read(self, one: Object, most: int) -> bytes:
        """What it holds.

        Raises:
            StoreAway: it cannot be read.
            TooMuch: that is more than `most` bytes.
        """
        raw = bytearray()
        for chunk in self._chunks(one):
            raw += chunk
            if len(raw) > most:
                raise TooMuch(f"{_last(one.path)} holds more than {most} bytes")
        return bytes(raw)

    def copy(self, one: Object, target: Path, take: Callable[[int], None]) -> None:
        """Write what it holds to `target`, which is not there yet.

        Args:
            take: is told of each chunk's bytes before they are written, and may raise.

        Raises:
            StoreAway: it cannot be read.
            OSError: `target` cannot be written.
        """
        with target.open("xb") as file:
            for chunk in self._chunks(one):
                take(len(chunk))
                file.write(chunk)

    def _chunks(self, one: Object) -> Iterator[bytes]:
        what = _last(one.path)
        block = 0 if self._web else _BLOCK_BYTES  # a web server need not know ranges
        file = self._by_connection(what, lambda: self._fs.open(one.path, "rb", block_size=block))
        try:
            while True:
                with self._reading(what):
                    chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk
        finally:
            file.close()

    def _listed(self) -> Listing:
        found: dict[Key, dict[str, Object]] = {}
        samples: dict[str, Object] = {}
        self._fs.invalidate_cache()
        infos = self._all() if self._flat else self._by_folder()
        for count, info in enumerate(infos):
            if count >= _MOST_OBJECTS:
                raise StoreAway(
                    f"{shown(self.url)}: more than {_MOST_OBJECTS} objects are there; give the "
                    "store a prefix of its own"
                )
            *folders, file = self._parts(info)
            if info.get("type", "file") != "file" or not all(map(_is_name, folders)):
                continue
            if len(folders) == 2 and _FILE.fullmatch(file):
                found.setdefault((folders[0], folders[1]), {})[file] = _object(info)
            elif len(folders) == 1 and file == SAMPLE_FILE:
                samples[folders[0]] = _object(info)
        return Listing(found, samples)

    def _all(self) -> Iterable[dict[str, Any]]:
        infos: dict[str, dict[str, Any]] = self._fs.find(self._root, detail=True)
        return infos.values()

    def _by_folder(self) -> Iterator[dict[str, Any]]:
        # Not by fsspec's own walk, which takes a folder that cannot be read for an empty one.
        for model in self._within(self._root):
            for one in self._within(model["name"]) if self._is_folder(model, 1) else ():
                if self._is_folder(one, 2):
                    yield from self._within(one["name"])
                else:
                    yield one

    def _within(self, folder: str) -> list[dict[str, Any]]:
        path = folder.rstrip("/") + "/" if self._web else folder
        found: list[dict[str, Any]] = self._fs.ls(path, detail=True)
        return found

    def _is_folder(self, info: Mapping[str, Any], depth: int) -> bool:
        parts = self._parts(info)
        return len(parts) == depth and _is_name(parts[-1]) and info.get("type") == "directory"

    def _parts(self, info: Mapping[str, Any]) -> list[str]:
        """Where in the store it lies, folder by folder; one without a name where it is outside."""
        name = str(info["name"])
        inside = name.startswith(self._root + "/")
        return name[len(self._root) :].strip("/").split("/") if inside else [""]

    def _by_connection(self, what: str, ask: Callable[[], _Answer]) -> _Answer:
        """What `ask` gives; once more by a new connection where the one that was kept fails, since
        servers end those that idle.

        Raises:
            StoreAway: the store cannot be read by a new one either.
        """
        with self._turn:
            if self._own_connection and self._fs is not None:
                try:
                    return ask()
                except StoreAway:
                    raise
                except Exception:
                    self._fs = None
            with self._reading(what):
                self._connect()
                return ask()

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Whatever the library of a store raises means that it cannot be read now."""
        try:
            with self._turn:
                yield
        except StoreAway:
            raise
        except Exception as error:
            # Another one is made when it is looked at again. A connection that says what is not
            # there is kept: were it lost, that is found when something is asked of it next.
            if self._own_connection and not isinstance(error, FileNotFoundError):
                self._fs = None
            raise StoreAway(
                f"{shown(self.url)}: {what} cannot be read: {_reason(error)}"
            ) from error


def _is_name(text: str) -> bool:
    return re.fullmatch(_NAME, text) is not None


def _object(info: Mapping[str, Any]) -> Object:
    size = info.get("size")
    stamps = [f"{name}={info[name]}" for name in _STAMPS if info.get(name) is not None]
    return Object(str(info["name"]), size, f"{' '.join(stamps)} {size}" if stamps else "")


def _options(scheme: str) -> dict[str, Any]:
    if scheme not in _WEB:
        return {}
    from aiohttp import ClientTimeout

    patience = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
    # So that a proxy and the credentials of .netrc are taken from the environment.
    client = {"timeout": patience, "trust_env": True}
    return {"client_kwargs": client, "simple_links": False}


def _missing(scheme: str, error: ImportError) -> str:
    said = f"a store at {scheme}:// needs packages that are missing: {_reason(error)}"
    extra = _EXTRAS.get(scheme)
    return said if extra is None else f"{said}: pip install 'gearshift[{extra}]'"


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _reason(error: Exception) -> str:
    """What went wrong, in a line; without the address that was asked, which may be signed."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"(\?|&)\S*=\S*", r"\1...", shown_addresses(text))
    return text[:_LONGEST_REASON]


def shown_addresses(text: str) -> str:
    """`text` with every URL in it as it may be shown."""
    return re.sub(r"[a-z][a-z0-9+.-]*://\S+", lambda found: shown(found[0]), text)
