"""Directives: each model's `Rollout`, kept in the state folder so that it outlives the process.

`STATE/rollouts/<model>.json`, written beside and renamed into place. Several worker processes
share the folder: a change holds a lock from reading to renaming, so that none is lost, and every
worker looks for the others' changes as often as it looks at the store.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from router.errors import InvalidRequest, NotReady
from router.rollout import AS_IT_LIES, Rollout

_LOG = logging.getLogger(__name__)

_LOCK = ".lock"
_SUFFIX = ".json"

Stamp = tuple[int, int, int]


class Directives:
    """What the operator wants of each model. Used by one thread at a time.

    Args:
        state: the state folder; it is made when something has to be remembered.
        store: a folder that is never made, for it may be a disk that is gone.
    """

    def __init__(self, state: Path, store: Path | None = None) -> None:
        self._folder = state / "rollouts"
        self._store = store
        self._was_there = False
        self._stamps: dict[str, Stamp] = {}
        self._rollouts: dict[str, Rollout] = {}
        self.look()

    def of(self, model: str) -> Rollout:
        """What is wanted of `model`."""
        return self._rollouts.get(model, AS_IT_LIES)

    def all(self) -> Mapping[str, Rollout]:
        """Every model of which something was ever said."""
        return dict(self._rollouts)

    def look(self) -> set[str]:
        """Read what has changed in the folder; the models it is about.

        What cannot be read is said once, and what was known before holds.
        """
        found = self._found()
        changed = {name for name, stamp in found.items() if self._stamps.get(name) != stamp}
        for name in sorted(changed):
            try:
                text = (self._folder / (name + _SUFFIX)).read_bytes()
                self._rollouts[name] = Rollout.model_validate_json(text)
            except OSError as error:
                _LOG.error("the rollout of %s cannot be read: %s", name, error.strerror)
            except ValidationError as error:
                _LOG.error("the rollout of %s is none, and is not heeded: %s", name, _said(error))
        gone = self._rollouts.keys() - found.keys()
        for name in gone:
            del self._rollouts[name]
        self._stamps = found
        return changed | gone

    def change(self, model: str, alter: Callable[[Rollout], Rollout]) -> Rollout:
        """Alter what is wanted of `model`; returns what now is.

        Raises:
            InvalidRequest: `alter` makes something that makes no sense.
            NotReady: the state folder cannot be written.
        """
        try:
            return self._change(model, alter)
        except OSError as error:
            raise NotReady(f"the state folder cannot be written: {error.strerror}") from error

    def _change(self, model: str, alter: Callable[[Rollout], Rollout]) -> Rollout:
        with self._locked():
            self.look()
            try:
                rollout = alter(self.of(model))
            except ValidationError as error:
                raise InvalidRequest("rollout", _said(error), "a rollout that can be") from error
            path = self._folder / (model + _SUFFIX)
            beside = self._folder / f".{model}.{os.getpid()}"
            beside.write_text(rollout.model_dump_json(indent=2) + "\n", encoding="utf-8")
            beside.replace(path)
            self.look()
        return rollout

    def _found(self) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        try:
            children = [*os.scandir(self._folder)]
        except OSError:
            return self._stamps  # nothing yet, or a disk that is gone: what is known holds
        self._was_there = True
        for child in children:
            if child.name.endswith(_SUFFIX) and not child.name.startswith("."):
                try:
                    status = child.stat()
                except OSError:
                    continue  # renamed over at this moment; the next look sees it
                stamp = status.st_mtime_ns, status.st_ino, status.st_size
                found[child.name.removesuffix(_SUFFIX)] = stamp
        return found

    def _make(self) -> None:
        """Make the folder where it was never there: what is gone with its disk comes back with it.

        Raises:
            NotReady: it was there, or is to be in a store that is gone.
        """
        if self._folder.is_dir():
            return
        if self._was_there:
            raise NotReady("the state folder is gone")
        within = self._store is not None and self._store in self._folder.parents
        if within and self._store is not None and not self._store.is_dir():
            raise NotReady("the state folder cannot be made: the store is gone")
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._make()
        with (self._folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _said(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    return detail["msg"].removeprefix("Value error, ")
