"""The copy of a store: a folder like any store, which several processes share.

    FOLDER/<model>/<variant>/   whole variants, each moved here when it was verified
    FOLDER/.pull-*              what is being fetched, or was when a process died
    FOLDER/.lock                held by whoever changes anything
    FOLDER/.state.json          what the last look said, so that one process looks for all

Names with a dot before them are no models, so that whoever serves the folder sees none of that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.lifecycle import catalog
from gateway.store.plan import Key
from router.manifest import MANIFEST_FILE

_LOCK = ".lock"
_STATE = ".state.json"
_SCRATCH = ".pull-"
SAMPLE_FILE = "sample.json"
"""The name that `gearshift compress` gives to a request that the variants beside it answer."""


class Cache:
    """The copy in `folder`, which is made.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self, *, wait: bool) -> Iterator[bool]:
        """Hold the lock; yields whether it is held: not where another has it and `wait` is off."""
        with (self.folder / _LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True  # closing the file lets go

    def digests(self) -> dict[Key, str]:
        """The digest of each variant's manifest; empty where it has none."""
        found = {}
        for model in catalog.folders(self.folder):
            for variant in catalog.folders(model):
                raw = b""
                with contextlib.suppress(OSError):
                    raw = (variant / MANIFEST_FILE).read_bytes()
                found[model.name, variant.name] = hashlib.sha256(raw).hexdigest() if raw else ""
        return found

    def path(self, key: Key) -> Path:
        """The folder of a variant."""
        return self.folder / key[0] / key[1]

    def held_bytes(self) -> int:
        """What the files of all variants hold together."""
        files = self.folder.glob("[!.]*/[!.]*/*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def read_state(self) -> bytes:
        """What was kept last; empty where nothing was."""
        try:
            return (self.folder / _STATE).read_bytes()
        except FileNotFoundError:
            return b""

    def write_state(self, raw: bytes) -> None:
        """Keep what the others should know."""
        beside = self.folder / f"{_STATE}.{os.getpid()}"
        beside.write_bytes(raw)
        beside.replace(self.folder / _STATE)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder to fetch a variant into, on the same disk; gone afterwards."""
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.folder) as scratch:
            yield Path(scratch)

    def place(self, key: Key, fetched: Path, scratch: Path) -> None:
        """Move what lies in `fetched` to the place of `key`, and what was there to `scratch`."""
        place = self.path(key)
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.rename(scratch / "before")
        fetched.rename(place)

    def has_sample(self, model: str) -> bool:
        """Whether the request that a build leaves beside the variants is here."""
        return (self.folder / model / SAMPLE_FILE).is_file()

    def write_sample(self, model: str, raw: bytes) -> None:
        """Keep that request, where there is a variant that it is for."""
        if (self.folder / model).is_dir():
            with self.scratch() as scratch:
                (scratch / SAMPLE_FILE).write_bytes(raw)
                (scratch / SAMPLE_FILE).replace(self.folder / model / SAMPLE_FILE)

    def remove(self, key: Key) -> None:
        """Delete a variant; whoever looks meanwhile sees all of it or nothing."""
        place = self.path(key)
        with self.scratch() as scratch, contextlib.suppress(FileNotFoundError):
            place.rename(scratch / "removed")
        if not catalog.folders(place.parent):
            (place.parent / SAMPLE_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else lies there
                place.parent.rmdir()

    def tidy(self) -> None:
        """Delete what processes that died have left; only for who holds the lock."""
        for left in self.folder.glob(_SCRATCH + "*"):
            shutil.rmtree(left, ignore_errors=True)
