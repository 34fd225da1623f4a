"""The build cache: networks after training steps, so that nothing is trained twice.

    CACHE/<key>.network     one network; the key is a digest of everything that made it
    CACHE/.<key>-xxxx       being written; renamed when whole

An entry is pickled (`torch.save` of whole modules: a pruned network has a structure that no
constructor makes), and reading a pickle runs what it says. So the cache is the user's own folder,
never part of a store, which may come from elsewhere: the folder is made with mode 0700, and one
that belongs to somebody else, or that others may write to, is refused. Each entry begins with the
SHA-256 of the rest, which is checked before anything is read out of it: that finds damage, and is
no protection against whoever can write here.

The cache may be deleted at any time. Where it cannot be written the build goes on without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import stat
import time
from pathlib import Path
from typing import Any

import torch

from compressors.errors import StoreError

# Some thousand networks of the size that CPUs serve; what was used least recently goes first.
LIMIT_BYTES = 4 * 1024**3

_SUFFIX = ".network"
_DIGEST = re.compile(rb"[0-9a-f]{64}\n")
_HEADER = 65
# What a killed build was writing is in nobody's way for a while.
_ABANDONED_S = 24 * 3600.0


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/gearshift`, or `~/.cache/gearshift` (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "gearshift"


class Cache:
    """Networks by key.

    Raises:
        StoreError: the folder is there and not the user's own.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder, self._limit = folder, limit_bytes
        try:
            found = folder.stat()
        except FileNotFoundError:
            return  # made when there is something to keep
        except OSError as error:
            raise StoreError(f"the cache {folder}: {error.strerror or error}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise StoreError(f"the cache {folder} is no folder")
        if found.st_uid != os.geteuid():
            raise StoreError(
                f"the cache {folder} belongs to user {found.st_uid}, and what is read from it is "
                "run: name a folder of your own with --cache, or say --no-cache"
            )
        if found.st_mode & 0o022:
            raise StoreError(
                f"others may write to the cache {folder}, and what is read from it is run: "
                f"chmod 700 {folder}, or say --no-cache"
            )

    def holds(self, key: str) -> bool:
        """Whether there is an entry; it may still turn out to be damaged."""
        return self._path(key).is_file()

    def get(self, key: str) -> Any | None:
        """What was put under `key`; None where there is nothing whole. A damaged entry is
        removed, as is one that a changed class cannot be read into."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        header, body = content[:_HEADER], content[_HEADER:]
        whole = (
            _DIGEST.fullmatch(header) and hashlib.sha256(body).hexdigest().encode() == header[:-1]
        )
        try:
            if whole:
                value = torch.load(io.BytesIO(body), weights_only=False)
                with contextlib.suppress(OSError):
                    os.utime(path)  # used: it goes last
                return value
        except Exception:  # an older class, a module that is gone: there is no common base
            pass
        path.unlink(missing_ok=True)
        return None

    def put(self, key: str, value: Any) -> str | None:
        """Keep `value`. Returns why it could not be kept, or None: a cache is no reason to fail."""
        buffer = io.BytesIO()
        try:
            torch.save(value, buffer)
        except Exception as error:  # a class made inside a function, a hook: whatever pickle says
            return f"{type(error).__name__}: {error}"
        body = buffer.getvalue()
        if len(body) > self._limit:
            return f"{len(body):,} bytes are more than the cache may hold"
        temporary = self._folder / f".{key}-{secrets.token_hex(4)}"
        try:
            if not self._folder.exists():
                self._folder.parent.mkdir(parents=True, exist_ok=True)
                self._folder.mkdir(mode=0o700, exist_ok=True)
            with temporary.open("xb") as stream:
                stream.write(hashlib.sha256(body).hexdigest().encode() + b"\n")
                stream.write(body)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._path(key))
            self._make_room()
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            return str(error.strerror or error)
        return None

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _make_room(self) -> None:
        """Remove the entries that were used least recently until the rest is within the limit."""
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):  # another build removed it
                about = path.stat()
                if path.suffix == _SUFFIX:
                    found.append((about.st_mtime, about.st_size, path))
                elif path.name.startswith(".") and time.time() - about.st_mtime > _ABANDONED_S:
                    path.unlink()
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size
