"""The artifact store: how a variant gets onto disk, whole or not at all.

    MODELS/<model>/<variant>/     card.json, programs, scores.safetensors, manifest.json
    MODELS/<model>/.build-xxxx/   one build's workspace; readers skip names that open with a dot
    MODELS/<model>/.making-<variant>   locked by the build that is making that variant

A variant is written in a workspace on the same file system, synced, and renamed into place; a
folder that is there is never written to. Replacing takes two renames: the old folder moves into
the workspace, the new one takes its name. A reader that looks between the two sees no variant for
some microseconds and never half of one; one that has the old files open keeps them.

A workspace belongs to whoever holds the lock on its folder, and the kernel drops that lock with
the process. So a build finds what a killed one left, and never clears what a living one uses. Two
builds may share a store: each variant is made by one of them at a time, and the other waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from compressors.errors import StoreError
from router.card import CARD_FILE, VariantCard
from router.manifest import MANIFEST_FILE, Manifest, differences

_PREFIX = ".build-"
_LOCK_PREFIX = ".making-"


class Workspace:
    """One build's place in the folder of a model. Use it with `with`; it cleans up after itself,
    and on entering also after builds that were killed.

    Raises:
        StoreError: the folder cannot be written to.
    """

    def __init__(self, model_folder: Path) -> None:
        self._home = model_folder

    def __enter__(self) -> Self:
        with _reported(self._home):
            self._home.mkdir(parents=True, exist_ok=True)
            _clear_leftovers(self._home)
            self._folder, self._lock = _claim(self._home)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def folder(self, variant: str) -> Path:
        """A new, empty folder to write `variant` in; what an earlier try left there is gone."""
        path = self._folder / variant
        with _reported(path):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        return path

    def scratch(self, name: str) -> Path:
        """A new, empty folder that is never published, for files that `adopt` may take."""
        # No variant's name opens with a dot.
        return self.folder(f".{name}")

    def adopt(self, variant: str, source: Path) -> None:
        """Move every file of `source` into what `folder(variant)` made.

        Raises:
            StoreError: a file of that name is there already.
        """
        target = self._folder / variant
        with _reported(target):
            for file in sorted(source.iterdir()):
                if (target / file.name).exists():
                    raise StoreError(f"{target}: two engines write a file {file.name}")
                file.rename(target / file.name)

    @contextlib.contextmanager
    def making(self, variant: str, waits: Callable[[], None]) -> Iterator[None]:
        """Alone among all builds with `variant` of this model. Where another build is making it,
        `waits` is called once, and then this one waits for that one's end."""
        path = self._home / f"{_LOCK_PREFIX}{variant}"
        with _reported(path):
            lock = _lock_file(path, waits)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)

    def publish(self, variant: str, card: VariantCard, *, replace: bool = False) -> Path:
        """Write card and manifest beside what `folder(variant)` holds and move it into place.

        Raises:
            StoreError: the store holds that variant and `replace` is false, or cannot be written.
        """
        source, target = self._folder / variant, self._home / variant
        with _reported(target):
            (source / CARD_FILE).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
            manifest = Manifest(schema_version=1, files=digests(source))
            (source / MANIFEST_FILE).write_text(
                manifest.model_dump_json(indent=1) + "\n", encoding="utf-8"
            )
            for file in source.iterdir():
                _sync(file)
            _sync(source)
            if target.exists():
                if not replace:
                    raise StoreError(f"{target} already exists; nothing is overwritten in place")
                target.rename(self._folder / f"{variant}.old-{secrets.token_hex(4)}")
            # Fails on a folder that another build put there in the meantime, as it should.
            source.rename(target)
            _sync(self._home)
        return target

    def publish_file(self, name: str, content: bytes) -> Path:
        """Put one file beside the variants, replacing an older one in a single step."""
        temporary, target = self._folder / name, self._home / name
        with _reported(target):
            temporary.write_bytes(content)
            _sync(temporary)
            temporary.replace(target)
        return target


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a variant's folder, but for the manifest's own.

    Raises:
        StoreError: it holds something that is not a plain file.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name == MANIFEST_FILE:
            continue
        if path.is_symlink() or not path.is_file():
            raise StoreError(f"{path} is not a plain file; a variant holds nothing else")
        with path.open("rb") as stream:
            found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def read(folder: Path) -> VariantCard:
    """The card of a variant whose every file is as its manifest says.

    Raises:
        StoreError: it is not; the message lists what differs.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
        problems = differences(manifest, digests(folder))
        if problems:
            raise StoreError(f"{folder} is damaged: {'; '.join(problems)}")
        return VariantCard.model_validate_json((folder / CARD_FILE).read_bytes())
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise StoreError(f"{folder}: {error.title}: {where}: {problem['msg']}") from error


def _claim(home: Path) -> tuple[Path, int]:
    while True:
        path = home / f"{_PREFIX}{secrets.token_hex(6)}"
        path.mkdir()
        lock = os.open(path, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path, lock
        # Another build took it for a leftover between the two calls above.
        os.close(lock)


def _lock_file(path: Path, waits: Callable[[], None]) -> int:
    told = False
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waits()
                    told = True
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Its last owner removes the file: what was waited for may be no longer what is there.
            if _same(path, lock):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _clear_leftovers(home: Path) -> None:
    for path in (*home.glob(f"{_PREFIX}*"), *home.glob(f"{_LOCK_PREFIX}*")):
        try:
            lock = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            with contextlib.suppress(BlockingIOError):  # its owner lives
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.name.startswith(_LOCK_PREFIX):
                    if _same(path, lock):
                        path.unlink(missing_ok=True)
                else:
                    shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
