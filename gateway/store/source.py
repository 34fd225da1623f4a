"""Where the variants that are served come from, when that is a URL: looked at again and again.

The first look is made before anything is loaded; where it fails, what was copied before is served.
Later ones run on a thread of their own, and what they put into the copy is found there by whoever
watches it. The store's credentials, proxy and endpoint come from the environment, as its library
reads them (`AWS_...`, `GOOGLE_...`, `.netrc`, `FSSPEC_...`).
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import Catalog, StoreUnusable
from gateway.lifecycle.signature import Check, anything
from gateway.settings import Settings, SettingsError
from gateway.store import urls
from gateway.store.cache import Cache
from gateway.store.plan import Key
from gateway.store.remote import Remote, Stopped, UrlUnusable
from gateway.store.sync import Said, Sync

_LOG = logging.getLogger(__name__)


class Source:
    """The store at a URL, and the folder that holds its copy.

    Attributes:
        unreadable: why the store cannot be read now; empty where it can. What was copied before
            serves on.
    """

    def __init__(self, url: str, sync: Sync, cache: Cache, every_s: float) -> None:
        self.url = url
        self.folder = cache.folder
        self.unreadable = ""
        self._sync = sync
        self._cache = cache
        self._every_s = every_s
        self._ended = threading.Event()
        self._told: dict[str, str] = {}

    def first(self) -> None:
        """Fetch what the store holds; waits for another process that does.

        Raises:
            StoreUnusable: nothing could be fetched, and nothing was before.
        """
        try:
            self._heed(self._sync.look(wait=True, fresh_s=self._every_s))
        except OSError as error:
            raise StoreUnusable(_unwritable(self.folder, error)) from error
        if not self._cache.digests():
            left_out = "; ".join(f"{name}: {why}" for name, why in sorted(self._told.items()))
            raise StoreUnusable(
                self.unreadable or f"{self.url}: nothing here can be served: {left_out}"
            )
        if self.unreadable:
            _LOG.error("%s; what was fetched before is served", self.unreadable)

    def start(self) -> None:
        """Look again and again from now on, on a thread that keeps no process from its end."""
        threading.Thread(target=self._run, name="store", daemon=True).start()

    def stop(self) -> None:
        """Change nothing any more."""
        self._ended.set()
        self._sync.stop()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._heed(self._sync.look(wait=False, fresh_s=self._every_s / 2))
            except Stopped:
                return
            except OSError as error:
                self.unreadable = _unwritable(self.folder, error)
            except Exception:
                _LOG.exception("the store could not be looked at")

    def _heed(self, said: Said) -> None:
        self.unreadable = said.unreadable
        told = {name: one.why for name, one in said.left_out.items()}
        for name, why in told.items():
            if self._told.get(name) != why:
                _LOG.warning("not fetched: %s: %s", name, why)
        self._told = told


def of(settings: Settings, check: Check) -> Source | None:
    """The source of what `settings` name, not looked at yet; None where that is a folder.

    Raises:
        SettingsError: nothing here reads such URLs.
        StoreUnusable: the folder for the copy cannot be made.
    """
    url = settings.models
    if not isinstance(url, str):
        return None
    sync, cache = _joined(url, settings.store, settings, check)
    return Source(url, sync, cache, settings.store_seconds)


def read(url: str, settings: Settings, check: Check = anything) -> Catalog:
    """What the store at `url` holds, for a command; by the copy that a server would use.

    Raises:
        SettingsError: it is no URL of a store, or nothing here reads such ones.
        StoreUnusable: the store cannot be read, or the copy not be written.
    """
    settings = settings.model_copy(update={"models": _checked(url)})
    return _read(settings.store, settings, check)


@contextmanager
def fetched(url: str, settings: Settings, check: Check = anything) -> Iterator[Catalog]:
    """As `read`, but every byte is fetched now, into a folder that is gone afterwards."""
    settings = settings.model_copy(update={"models": _checked(url)})
    with tempfile.TemporaryDirectory(prefix="gearshift-") as folder:
        yield _read(Path(folder), settings, check)


def variant(url: str, settings: Settings) -> tuple[Path, str]:
    """The folder of the copy of one variant, and why it is not what the store holds, if it is not.

    Args:
        url: of the variant: the store's, the model and the variant.

    Raises:
        SettingsError, StoreUnusable: as of `read`.
    """
    store, model, name = _checked(url).rsplit("/", 2)
    found = read(store, settings)
    why = found.broken.get(model, {}).get(name, "")
    return settings.model_copy(update={"models": store}).store / model / name, why


def _read(folder: Path, settings: Settings, check: Check) -> Catalog:
    url = str(settings.models)
    sync, cache = _joined(url, folder, settings, check)
    try:
        said = sync.look(wait=True)
    except OSError as error:
        raise StoreUnusable(_unwritable(folder, error)) from error
    if said.unreadable:
        raise StoreUnusable(said.unreadable)
    found = catalog.read(cache.folder, check)
    # What is left of an older build is not what the store holds.
    stale = {_key(name): one.why for name, one in said.left_out.items()}
    models = {
        model: {name: entry for name, entry in entries.items() if (model, name) not in stale}
        for model, entries in found.models.items()
    }
    broken = {model: dict(whys) for model, whys in found.broken.items()}
    for (model, name), why in stale.items():
        broken.setdefault(model, {})[name] = why
    return Catalog({model: entries for model, entries in models.items() if entries}, broken)


def _joined(url: str, folder: Path, settings: Settings, check: Check) -> tuple[Sync, Cache]:
    try:
        remote = Remote(url)
    except UrlUnusable as error:
        raise SettingsError(f"models: {error}") from error
    try:
        cache = Cache(folder)
    except OSError as error:
        raise StoreUnusable(_unwritable(folder, error)) from error
    most_bytes = int(settings.store_cache_mb * 1e6)
    return Sync(remote, cache, most_bytes=most_bytes, check=check), cache


def _checked(url: str) -> str:
    try:
        return urls.checked(url)
    except ValueError as error:
        raise SettingsError(f"{urls.shown(url)}: expected {error}") from error


def _key(name: str) -> Key:
    model, _, variant = name.partition("/")
    return model, variant


def _unwritable(folder: Path, error: OSError) -> str:
    return f"{folder}: the copy of the store cannot be written: {error.strerror or error}"
