"""The catalogue: artifact folders read into cards, digests checked, broken ones named.

A store is `MODELS/<model>/<variant>/`. Nothing is executed and nothing unpickled here: cards and
manifests are JSON, scores are safetensors. A variant that is not whole, or whose card is not one,
is left out and named; the others of its model are read all the same.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from gateway.evidence import paired_lower_bounds
from gateway.lifecycle.signature import Check, NotSigned, anything
from router.card import CARD_FILE, NAME_PATTERN, SCORES_FILE, VariantCard
from router.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, differences
from router.menu import Menu, Percentile, menu

_NAME = re.compile(NAME_PATTERN)

Scores = NDArray[Any]

DISAGREES = "its inputs, outputs, metric or reference are not those of the model's other variants"


class StoreUnusable(Exception):
    """There is no store here, or nothing in it can be served."""


class VariantUnusable(Exception):
    """One variant's folder is not whole or not what it says it is."""


@dataclass(frozen=True)
class Entry:
    """One variant that is whole: its folder and its card.

    Attributes:
        digest: SHA-256 of its manifest, which tells one build of a variant from another.
        scores: per-sample scores and clusters, each (samples,); None where there are none.
        check: of its signature, whenever its files are read again.
    """

    folder: Path
    card: VariantCard
    digest: str = ""
    scores: tuple[Scores, Scores] | None = field(default=None, repr=False, compare=False)
    check: Check = field(default=anything, repr=False, compare=False)


@dataclass(frozen=True)
class Catalog:
    """What a store holds.

    Attributes:
        models: entries by model and variant, in the order of their names.
        broken: by model and variant, why each folder that was left out was.
    """

    models: Mapping[str, Mapping[str, Entry]]
    broken: Mapping[str, Mapping[str, str]]

    @property
    def problems(self) -> tuple[str, ...]:
        """For each folder that was left out, which and why."""
        return tuple(
            f"{model}/{variant}: {why}"
            for model, whys in self.broken.items()
            for variant, why in whys.items()
        )


def read(store: Path, check: Check = anything) -> Catalog:
    """Every variant of `store` whose digests are right, and whose signature where `check` asks.

    Raises:
        StoreUnusable: `store` is no readable folder.
    """
    models: dict[str, dict[str, Entry]] = {}
    broken: dict[str, dict[str, str]] = {}
    for model in folders(store):
        entries: dict[str, Entry] = {}
        whys: dict[str, str] = {}
        for folder in folders(model):
            try:
                entries[folder.name] = read_variant(folder, check)
            except VariantUnusable as error:
                whys[folder.name] = str(error)
        kept, odd = consistent(entries)
        if whys or odd:
            broken[model.name] = {**whys, **odd}
        if kept:
            models[model.name] = kept
    return Catalog(models, broken)


def usable(store: Path, check: Check = anything) -> Catalog:
    """As `read`, for those that need something to serve.

    Raises:
        StoreUnusable: there is nothing that can be served.
    """
    catalog = read(store, check)
    if not catalog.models:
        if catalog.problems:
            raise StoreUnusable(
                f"{store}: nothing here can be served: {'; '.join(catalog.problems)}"
            )
        raise StoreUnusable(
            f"{store}: no variants here; build some with `gearshift compress TASK --out {store}`"
        )
    return catalog


@contextmanager
def _reading() -> Iterator[None]:
    """A file that cannot be read makes its variant unusable, and nothing else."""
    try:
        yield
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, str) else "a file of it"
        raise VariantUnusable(f"{name} cannot be read: {error.strerror}") from error


@_reading()
def read_variant(folder: Path, check: Check = anything) -> Entry:
    """One variant, with the digest of every file checked against its manifest.

    Args:
        check: of its signature, as `gateway.lifecycle.signature.checker` makes it.

    Raises:
        VariantUnusable: anything is missing, changed, a link, or not what it should be.
    """
    _refuse_links(folder)
    text = (folder / MANIFEST_FILE).read_bytes()
    manifest = _vouched(folder, text, check)
    if CARD_FILE not in manifest.files:
        raise VariantUnusable(f"{CARD_FILE} is missing")
    try:
        card = VariantCard.model_validate_json(_own(folder, CARD_FILE, manifest))
    except ValidationError as error:
        raise VariantUnusable(f"{CARD_FILE} is not a card: {_first(error)}") from error
    named = (folder.parent.name, folder.name)
    if (card.model, card.variant) != named:
        raise VariantUnusable(
            f"the card is of {card.model}/{card.variant}, the folder is {'/'.join(named)}"
        )
    return Entry(folder, card, _sha256(text), _scores(folder, manifest), check)


@_reading()
def check_unchanged(entry: Entry) -> None:
    """Make sure that what lies in its folder is what was checked: every digest, and the signature.

    Whoever loads a variant calls it before, so that nothing else is ever loaded, and after, since
    a folder may be replaced meanwhile. It reads every file: not for the event loop.

    Raises:
        VariantUnusable: a file has changed, or another build lies there now, or none.
    """
    _refuse_links(entry.folder)
    text = (entry.folder / MANIFEST_FILE).read_bytes()
    if entry.digest != _sha256(text):
        raise VariantUnusable("it was replaced since it was checked")
    _vouched(entry.folder, text, entry.check)


def _refuse_links(folder: Path) -> None:
    # What a link leads to is not the store's, and may change without it.
    for place in (folder.parent, folder):
        if place.is_symlink():
            raise VariantUnusable(f"{place.name} is a link, not a folder")


def _vouched(folder: Path, text: bytes, check: Check) -> Manifest:
    """The manifest `text`, which the files of `folder` agree with, and `check` as well."""
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise VariantUnusable(f"{MANIFEST_FILE} is not a manifest: {_first(error)}") from error
    wrong = differences(manifest, digests(folder))
    if wrong:
        raise VariantUnusable("; ".join(wrong))
    try:
        check(folder)
    except NotSigned as error:
        raise VariantUnusable(str(error)) from error
    return manifest


def _own(folder: Path, name: str, manifest: Manifest) -> bytes:
    """What a file of `manifest` holds, be it replaced after it was checked."""
    raw = (folder / name).read_bytes()
    if _sha256(raw) != manifest.files[name]:
        raise VariantUnusable(f"{name} was replaced while it was read")
    return raw


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@_reading()
def digests(folder: Path) -> dict[str, str]:
    """SHA-256, in hexadecimal, of every file of `folder` but its manifest and its signature.

    Raises:
        VariantUnusable: something in it is no plain file, or cannot be read.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name in (MANIFEST_FILE, SIGNATURE_FILE):
            continue
        # A link may lead out of the store, and what it leads to may change after the check.
        if path.is_symlink() or not path.is_file():
            raise VariantUnusable(f"{path.name} is no plain file")
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def menu_of(
    entries: Mapping[str, Entry],
    *,
    percentile: Percentile,
    usd_per_lane_hour: float,
    max_batch: int,
) -> Menu:
    """The menu of one model's entries, with the evidence of their per-sample scores."""
    return menu(
        [entry.card for entry in entries.values()],
        percentile=percentile,
        usd_per_lane_hour=usd_per_lane_hour,
        max_batch=max_batch,
        not_worse=evidence(entries),
    )


def evidence(entries: Mapping[str, Entry]) -> dict[str, dict[str, float]]:
    """`evidence[best][variant]`: the lower end of the paired interval of variant minus best.

    Only variants that were scored on the same samples are paired. Without scores the cards' own
    intervals are compared, which proves less.
    """
    groups: dict[bytes, tuple[dict[str, Scores], Scores]] = {}
    for name, entry in entries.items():
        if entry.scores is None:
            continue
        scores, clusters = entry.scores
        task = entry.card.task
        key = repr((task.name, task.split, clusters.shape)).encode() + clusters.tobytes()
        groups.setdefault(key, ({}, clusters))[0][name] = scores
    found: dict[str, dict[str, float]] = {}
    for scores_by_variant, clusters in groups.values():
        for (variant, best), low in paired_lower_bounds(scores_by_variant, clusters).items():
            found.setdefault(best, {})[variant] = low
    return found


def folders(parent: Path) -> list[Path]:
    """The folders in `parent` whose names can be a model's or a variant's, in their order.

    Raises:
        StoreUnusable: it is no readable folder.
    """
    try:
        children = sorted(parent.iterdir())
        # Hidden folders are builds in progress; other files (pictures) are no variants.
        return [child for child in children if _NAME.fullmatch(child.name) and child.is_dir()]
    except OSError as error:
        raise StoreUnusable(f"{parent}: not a folder that can be read: {error.strerror}") from error


def kind(entry: Entry) -> str:
    """What all variants of one model must share, so that any of them can answer a request."""
    card = entry.card
    return repr((card.reference, card.inputs, card.outputs, card.processor, card.task.metric))


def consistent(entries: Mapping[str, Entry]) -> tuple[dict[str, Entry], dict[str, str]]:
    """Those that can stand behind one endpoint together, and why each other one cannot.

    One request must be answerable by any of them, so inputs, outputs and reference must agree;
    the reference's own card is the one to agree with, or without it the most common.
    """
    if not entries:
        return {}, {}
    own = [kind(entry) for name, entry in entries.items() if entry.card.reference == name]
    ((agreed, _),) = Counter(own or [kind(entry) for entry in entries.values()]).most_common(1)
    kept = {name: entry for name, entry in entries.items() if kind(entry) == agreed}
    return kept, {name: DISAGREES for name in entries if name not in kept}


def _scores(folder: Path, manifest: Manifest) -> tuple[Scores, Scores] | None:
    if SCORES_FILE not in manifest.files:
        return None
    try:
        tensors = load(_own(folder, SCORES_FILE, manifest))
        return tensors["scores"], tensors["clusters"]
    except (KeyError, SafetensorError):
        return None


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in detail["loc"]) or "the whole"
    return f"{where}: {detail['msg']}"
