"""The watch: what has changed in the store since it was looked at last.

A look costs one `stat` a variant: a folder whose manifest is the same is the same, for a variant is
written beside and renamed into place. What is not whole is looked at file by file, since somebody
may be copying it, and read again when any of them has changed. Hidden folders are builds in
progress.

A store that cannot be read, or that is empty all at once, is a disk that is gone and not a wish: it
changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import Entry, StoreUnusable, VariantUnusable
from gateway.lifecycle.signature import Check, anything
from router.manifest import MANIFEST_FILE

Key = tuple[str, str]
"""A model and one of its variants."""

Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed, by model and variant.

    Attributes:
        found: builds that are new, each whole.
        broken: why each folder that is new or has changed cannot be served.
        gone: what is not there any more.
        unreadable: why the store cannot be read, or what it is a copy of; empty where it can.
    """

    found: Mapping[Key, Entry] = field(default_factory=dict)
    broken: Mapping[Key, str] = field(default_factory=dict)
    gone: frozenset[Key] = frozenset()
    unreadable: str = ""

    def __bool__(self) -> bool:
        return bool(self.found or self.broken or self.gone)


class Origin(Protocol):
    """The store that a watched folder is a copy of.

    Attributes:
        unreadable: why it cannot be read now; empty where it can.
    """

    url: str
    unreadable: str


class Watch:
    """What was seen of a store. Used by one thread at a time; a look reads files.

    Args:
        store: the folder to watch. What it holds when this is made counts as seen.
        check: of the signature of what is new.
        origin: what the folder is a copy of, if it is one, which others keep like that.
    """

    def __init__(self, store: Path, check: Check = anything, origin: Origin | None = None) -> None:
        self.store = store
        self.check = check
        self.origin = origin
        self._whole: dict[Key, Stamp] = {}
        self._broken: dict[Key, Stamp] = {}
        for key, folder in self._folders().items():
            self._whole[key] = _manifest(folder)

    def doubt(self, key: Key) -> None:
        """Look at the files of a variant one by one from now on: it is not whole."""
        if self._whole.pop(key, None) is not None:
            self._broken[key] = _files(self.store / key[0] / key[1])

    def look(self, doubtful: Collection[Key] = ()) -> Changes:
        """What has changed since the last look; reads and checks every file of what is new.

        Args:
            doubtful: what is to be read again though its manifest is the same.
        """
        for key in doubtful:
            if self._whole.pop(key, None) is not None:
                self._broken[key] = ()
        try:
            folders = self._folders()
        except StoreUnusable as error:
            return Changes(unreadable=str(error))
        known = self._whole.keys() | self._broken.keys()
        if known and not folders:
            return Changes(unreadable=f"{self.store}: nothing is there any more")
        found: dict[Key, Entry] = {}
        broken: dict[Key, str] = {}
        for key, folder in folders.items():
            manifest = _manifest(folder)
            if self._whole.get(key) == manifest:
                continue
            files = _files(folder)
            if key in self._broken and self._broken[key] == files:
                continue
            try:
                found[key] = catalog.read_variant(folder, self.check)
            except VariantUnusable as error:
                self._whole.pop(key, None)
                self._broken[key] = files
                broken[key] = str(error)
            else:
                self._broken.pop(key, None)
                self._whole[key] = manifest
        gone = known - folders.keys()
        for key in gone:
            self._whole.pop(key, None)
            self._broken.pop(key, None)
        away = self.origin.unreadable if self.origin is not None else ""
        return Changes(found, broken, frozenset(gone), away)

    def _folders(self) -> dict[Key, Path]:
        return {
            (model.name, folder.name): folder
            for model in catalog.folders(self.store)
            for folder in catalog.folders(model)
        }


def _manifest(folder: Path) -> Stamp:
    if _linked(folder):
        return ()
    return _stamp(os.path.join(folder, MANIFEST_FILE))  # noqa: PTH118 - a look is all of these


def _files(folder: Path) -> Stamp:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return ()
    files = [one for name in names for one in _stamp(os.path.join(folder, name))]  # noqa: PTH118
    # What a link led to may come into its place.
    return (("", int(_linked(folder)), 0, 0), *files)


def _linked(folder: Path) -> bool:
    return os.path.islink(folder) or os.path.islink(folder.parent)  # noqa: PTH114


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return ()
    return ((path, status.st_mtime_ns, status.st_size, status.st_ino),)
