"""One look at the store: list, fetch what is new, verify, move into place, remove what is gone.

Nothing that is not whole is ever seen in the copy: a variant is fetched beside it, every digest of
its manifest is checked there, and only then is it moved. A store that cannot be read, or that is
empty all at once, is one that is away and not a wish: it changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import VariantUnusable
from gateway.lifecycle.signature import Check, anything
from gateway.store.cache import Cache
from gateway.store.crew import each
from gateway.store.plan import Key, plan
from gateway.store.remote import Files, Remote, StoreAway, TooMuch
from gateway.store.room import Room
from gateway.store.urls import shown
from router.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest

_LOG = logging.getLogger(__name__)

_MOST_MANIFEST_BYTES = 1 << 20
_MOST_SIGNATURE_BYTES = 1 << 20
_MOST_SAMPLE_BYTES = 4 << 20
_MOST_FILES = 1000
# What was not whole is fetched again when its files change, or after so long: what came broken
# over the network has not changed.
_AGAIN_S = 60.0


class LeftOut(BaseModel):
    """A variant that is not in the copy as it is in the store.

    Attributes:
        stamp: of its files there; another one is a reason to try again.
        at: when that was, as the time of day in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    why: str
    stamp: str
    at: float


class Said(BaseModel):
    """What the last look said. Kept in the copy, for all processes that share it.

    Attributes:
        at: when that was, as the time of day in seconds.
        unreadable: why the store cannot be read; empty where it can.
        left_out: what is not in the copy as it is in the store, by `model/variant`.
        manifests: by `model/variant`, the stamp of its manifest and the digest.
        samples: by model, the stamp of its sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float = 0.0
    unreadable: str = ""
    left_out: dict[str, LeftOut] = {}
    manifests: dict[str, tuple[str, str]] = {}
    samples: dict[str, str] = {}


class Sync:
    """Keeps `cache` like the store.

    Args:
        most_bytes: what the copy may hold, with what is being fetched.
        check: of the signature of what is fetched.
    """

    def __init__(
        self, remote: Remote, cache: Cache, *, most_bytes: int, check: Check = anything
    ) -> None:
        self._remote = remote
        self._cache = cache
        self._most_bytes = most_bytes
        self._check = check
        self._whole: set[tuple[Key, str]] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Give up what is being fetched; may be called by any thread."""
        self._stopped.set()

    def look(self, *, wait: bool, fresh_s: float = 0.0) -> Said:
        """Make the copy like the store, unless another process does or just did.

        Args:
            wait: whether to wait for a process that does.
            fresh_s: how long what another process saw holds.

        Raises:
            OSError: the copy cannot be written.
            Stopped: `stop` was called.
        """
        with self._cache.locked(wait=wait) as mine:
            said = self._said()
            if not mine or 0 <= time.time() - said.at < fresh_s:
                return said
            self._cache.tidy()
            said = self._look(said)
            self._cache.write_state(said.model_dump_json().encode())
            return said

    def _said(self) -> Said:
        try:
            return Said.model_validate_json(self._cache.read_state() or b"{}")
        except ValidationError:  # of another release
            return Said()

    def _look(self, before: Said) -> Said:
        now_s = time.time()
        here = self._verified()
        try:
            listing = self._remote.listing()
        except StoreAway as error:
            return before.model_copy(update={"at": now_s, "unreadable": str(error)})
        there = listing.variants
        if not there:
            nothing = f"{shown(self._remote.url)}: nothing is there{' any more' if here else ''}"
            return before.model_copy(update={"at": now_s, "unreadable": nothing})
        left_out: dict[str, LeftOut] = {}
        texts, manifests = self._manifests(there, before, left_out, now_s)
        digests = {name: digest for name, (_, digest) in manifests.items()}
        todo = plan({key: digests.get("/".join(key)) for key in there}, here)
        for key in todo.remove:
            self._cache.remove(key)
            _LOG.info("removed from the copy: %s/%s", *key)
        room = Room(self._most_bytes - self._cache.held_bytes() if todo.fetch else 0)

        def fetch(key: Key) -> None:
            name, files = "/".join(key), there[key]
            known, stamp = before.left_out.get(name), _stamp(files)
            if known and stamp and known.stamp == stamp and 0 <= now_s - known.at < _AGAIN_S:
                left_out[name] = known
                return
            try:
                self._fetch(key, files, texts.get(key), room)
                self._whole.add((key, digests[name]))
            except (StoreAway, TooMuch, VariantUnusable) as error:
                left_out[name] = LeftOut(why=str(error), stamp=stamp, at=now_s)

        each(fetch, todo.fetch)
        samples = self._samples(listing.samples, before)
        return Said(at=time.time(), left_out=left_out, manifests=manifests, samples=samples)

    def _verified(self) -> dict[Key, str]:
        """What the copy holds; a variant in it that is not what it was counts as none."""
        here = self._cache.digests()
        for key, digest in here.items():
            if (key, digest) in self._whole:
                continue
            try:
                catalog.read_variant(self._cache.path(key), self._check)
                self._whole.add((key, digest))
            except VariantUnusable as error:
                _LOG.warning("fetched again: %s/%s: %s", *key, error)
                here[key] = ""
        return here

    def _manifests(
        self, there: Mapping[Key, Files], before: Said, left_out: dict[str, LeftOut], now_s: float
    ) -> tuple[dict[Key, bytes], dict[str, tuple[str, str]]]:
        """The manifests that had to be read; and the stamp and digest of each one."""
        texts: dict[Key, bytes] = {}
        stamps: dict[str, tuple[str, str]] = {}

        def read(key: Key) -> None:
            name, one = "/".join(key), there[key].get(MANIFEST_FILE)
            if one is None:
                why = f"{MANIFEST_FILE} is missing"
                left_out[name] = LeftOut(why=why, stamp="", at=now_s)
                return
            known = before.manifests.get(name)
            if known is not None and one.stamp and known[0] == one.stamp:
                stamps[name] = known
                return
            try:
                texts[key] = text = self._remote.read(one, _MOST_MANIFEST_BYTES)
            except (StoreAway, TooMuch) as error:
                left_out[name] = LeftOut(why=str(error), stamp="", at=now_s)
            else:
                stamps[name] = one.stamp, hashlib.sha256(text).hexdigest()

        each(read, there)
        return texts, stamps

    def _samples(self, there: Files, before: Said) -> dict[str, str]:
        """Fetch the samples that are new; the stamp of each one that is here."""
        stamps = {}
        for model, one in there.items():
            known = bool(one.stamp) and before.samples.get(model) == one.stamp
            # Nothing depends on them, and nobody vouches for them: one that cannot be had is none.
            with contextlib.suppress(StoreAway, TooMuch):
                if not (known and self._cache.has_sample(model)):
                    raw = self._remote.read(one, _MOST_SAMPLE_BYTES)
                    self._cache.write_sample(model, raw)
                stamps[model] = one.stamp
        return stamps

    def _fetch(self, key: Key, files: Files, text: bytes | None, room: Room) -> None:
        """Put the build that is in the store now into the copy, whole."""
        if text is None:
            text = self._remote.read(files[MANIFEST_FILE], _MOST_MANIFEST_BYTES)
        wanted = _wanted(text, files)
        room.check(sum(one.size or 0 for one in wanted.values()))
        with self._cache.scratch() as scratch:
            # The card says which variant of which model it is, and so must the folders.
            folder = scratch.joinpath(*key)
            folder.mkdir(parents=True)
            (folder / MANIFEST_FILE).write_bytes(text)
            with room.rented(self._stopped) as take:
                for name, one in wanted.items():
                    self._remote.copy(one, folder / name, take)
                catalog.read_variant(folder, self._check)
                self._cache.place(key, folder, scratch)
        _LOG.info("fetched: %s/%s", *key)


def _wanted(text: bytes, files: Files) -> Files:
    """What a manifest vouches for, and its signature; nothing else that lies beside them.

    Raises:
        VariantUnusable: it is no manifest, or names what is not there.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise VariantUnusable(f"{MANIFEST_FILE} is not a manifest") from error
    if len(manifest.files) > _MOST_FILES:
        raise VariantUnusable(f"{MANIFEST_FILE} names more than {_MOST_FILES} files")
    missing = [name for name in sorted(manifest.files) if name not in files]
    if missing:
        raise VariantUnusable(f"{missing[0]} is missing")
    own = (MANIFEST_FILE, SIGNATURE_FILE)
    wanted = {name: files[name] for name in manifest.files if name not in own}
    signature = files.get(SIGNATURE_FILE)
    if signature is not None and (signature.size or 0) <= _MOST_SIGNATURE_BYTES:
        wanted[SIGNATURE_FILE] = signature
    return wanted


def _stamp(files: Files) -> str:
    """Another one where any of the files is another; empty where the store does not say."""
    stamps = [f"{name} {one.stamp}" for name, one in sorted(files.items()) if one.stamp]
    if len(stamps) < len(files):
        return ""
    return hashlib.sha256("\n".join(stamps).encode()).hexdigest()
