"""Intake: a build that comes as a tar archive, checked and moved into the store; and out of it.

Nothing in an archive decides where it is written: its members are plain files by name, they go into
a hidden folder beside the place, and they are moved there only when every digest is right.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from gateway.lifecycle import archive as archives
from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import VariantUnusable
from gateway.lifecycle.signature import Check, anything
from router.card import NAME_PATTERN
from router.errors import InvalidRequest, NotReady

_NAME = re.compile(NAME_PATTERN)


def receive(store: Path, model: str, variant: str, archive: Path, check: Check = anything) -> None:
    """Put the build that `archive` holds into the store, in place of the one that is there.

    Raises:
        InvalidRequest: it is no tar archive, or no whole build of that variant, or a link is in its
            place's way.
        TooLarge: it is over the limit when it is unpacked.
        NotReady: the store cannot be written.
    """
    _check(store, model, variant)
    try:
        with tempfile.TemporaryDirectory(prefix=".intake-", dir=store) as scratch:
            # The card says which variant of which model it is, and so must the folders.
            folder = Path(scratch) / model / variant
            folder.mkdir(parents=True)
            archives.unpack(archive, folder)
            try:
                catalog.read_variant(folder, check)
            except VariantUnusable as error:
                raise InvalidRequest("body", str(error), f"a whole build of {variant}") from error
            place = store / model / variant
            place.parent.mkdir(exist_ok=True)
            if place.exists():
                place.rename(Path(scratch) / "before")
            folder.rename(place)
    except OSError as error:
        raise NotReady(f"the store cannot be written: {error.strerror}") from error


def remove(store: Path, model: str, variant: str) -> None:
    """Delete a variant from the store; whoever looks meanwhile sees all of it or nothing.

    Raises:
        NotReady: the store cannot be written.
    """
    _check(store, model, variant)
    try:
        with tempfile.TemporaryDirectory(prefix=".intake-", dir=store) as scratch:
            place = store / model / variant
            if place.is_symlink():
                place.unlink()
            elif place.exists():
                place.rename(Path(scratch) / "removed")
    except OSError as error:
        raise NotReady(f"the store cannot be written: {error.strerror}") from error


def _check(store: Path, model: str, variant: str) -> None:
    for field, name in (("model", model), ("variant", variant)):
        if not _NAME.fullmatch(name):
            raise InvalidRequest(field, name, f"a name matching {NAME_PATTERN}")
    if os.path.islink(store / model):  # noqa: PTH114 - a disk that fails is told of later
        raise InvalidRequest("model", model, "a folder of the store, and no link out of it")
