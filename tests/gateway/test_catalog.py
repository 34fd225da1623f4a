"""A store as it is read: whole variants in, broken ones named and left out."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from gateway.evidence import paired_interval
from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import StoreUnusable, VariantUnusable
from gateway.lifecycle.watch import Watch


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "models"
    shutil.copytree(tiny_store, copy)
    return copy


def reseal(folder: Path) -> None:
    """Make the manifest right again after a file was changed."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def problem(store: Path) -> str:
    """The one problem of the store; the other variants are served all the same."""
    found = catalog.read(store)
    assert "fp32" in found.models["tiny"]
    (only,) = found.problems
    return only


def test_what_the_build_wrote_is_read(store: Path) -> None:
    found = catalog.usable(store)
    assert found.problems == ()
    assert {"fp32", "int8"} <= set(found.models["tiny"])
    entry = found.models["tiny"]["int8"]
    assert entry.card.precision == "int8"
    assert entry.folder == store / "tiny" / "int8"


def test_one_flipped_bit_is_found_in_any_file(store: Path) -> None:
    folder = store / "tiny" / "int8"
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        found = catalog.read(store)
        assert "int8" not in found.models["tiny"], path.name
        assert "tiny/int8" in found.problems[0]
        path.write_bytes(whole)
    assert catalog.read(store).problems == ()


def test_a_missing_an_added_and_a_linked_file_are_found(store: Path) -> None:
    folder = store / "tiny" / "int8"
    (folder / "extra.bin").write_bytes(b"x")
    assert "extra.bin is not in the manifest" in problem(store)
    (folder / "extra.bin").unlink()
    scores = folder / "scores.safetensors"
    moved = store / "elsewhere"
    scores.rename(moved)
    assert "scores.safetensors is missing" in problem(store)
    scores.symlink_to(moved)
    assert "scores.safetensors is no plain file" in problem(store)


def test_a_link_keeps_its_variants_out(store: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (store / "tiny" / "int8").rename(elsewhere)
    (store / "tiny" / "int8").symlink_to(elsewhere)
    assert problem(store) == "tiny/int8: int8 is a link, not a folder"
    (store / "tiny" / "int8").unlink()
    elsewhere.rename(store / "tiny" / "int8")
    entry = catalog.read(store).models["tiny"]["int8"]
    (store / "tiny").rename(elsewhere)
    (store / "tiny").symlink_to(elsewhere)
    found = catalog.read(store)
    assert not found.models and found.broken["tiny"]["int8"] == "tiny is a link, not a folder"
    with pytest.raises(VariantUnusable, match="tiny is a link"):
        catalog.check_unchanged(entry)


def test_a_file_that_is_replaced_while_it_is_read_is_not_taken(
    store: Path,
) -> None:
    folder = store / "tiny" / "int8"

    def check(_: Path) -> None:
        path.write_bytes(path.read_bytes() + b" ")

    for name in ("card.json", "scores.safetensors"):
        path = folder / name
        whole = path.read_bytes()
        with pytest.raises(VariantUnusable, match=f"{name} was replaced while it was read"):
            catalog.read_variant(folder, check)
        path.write_bytes(whole)


@pytest.mark.parametrize("what", ["iterdir", "is_dir", "is_file", "is_symlink"])
def test_a_disk_that_fails_is_no_fault_of_the_program(
    store: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    entry = catalog.read_variant(store / "tiny" / "int8")

    def fails(self: Path) -> Iterator[Path]:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))

    watch = Watch(store)
    monkeypatch.setattr(Path, what, fails)
    if what in ("iterdir", "is_dir"):
        with pytest.raises(StoreUnusable, match="Input/output error"):
            catalog.folders(store)
        assert "Input/output error" in watch.look().unreadable
    if what != "is_dir":
        with pytest.raises(VariantUnusable, match="cannot be read: Input/output error"):
            catalog.check_unchanged(entry)
    if what == "iterdir":
        with pytest.raises(VariantUnusable, match="cannot be read: Input/output error"):
            catalog.digests(entry.folder)


def test_a_manifest_that_is_absent_or_no_manifest(store: Path) -> None:
    manifest = store / "tiny" / "int8" / "manifest.json"
    manifest.write_text("{")
    assert "manifest.json is not a manifest" in problem(store)
    manifest.write_text('{"schema_version": 1, "files": {"../../secret": "' + "0" * 64 + '"}}')
    assert "manifest.json is not a manifest" in problem(store)
    manifest.unlink()
    assert "manifest.json cannot be read" in problem(store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"latency": []}, "latency"),
        ({"model": "other"}, "the card is of other/int8"),
        ({"reference": "int8"}, "reference are not those"),
    ],
)
def test_a_card_that_is_not_one(store: Path, change: dict[str, object], said: str) -> None:
    folder = store / "tiny" / "int8"
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | change))
    reseal(folder)
    assert said in problem(store)


def test_text_that_is_no_card(store: Path) -> None:
    folder = store / "tiny" / "int8"
    (folder / "card.json").write_bytes(b"\xff\xfenot json")
    reseal(folder)
    assert "card.json is not a card" in problem(store)


def test_no_store_an_empty_one_and_one_with_nothing_whole(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"absent.*No such file"):
        catalog.usable(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="Not a directory"):
        catalog.usable(tmp_path / "file")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(StoreUnusable, match="gearshift compress"):
        catalog.usable(empty)
    for folder in (store / "tiny").iterdir():
        (folder / "manifest.json").unlink(missing_ok=True) if folder.is_dir() else None
    with pytest.raises(StoreUnusable, match=r"tiny/fp32: manifest\.json"):
        catalog.usable(store)


def test_builds_in_progress_and_pictures_are_no_variants(store: Path) -> None:
    (store / "tiny" / ".build-abc").mkdir()
    (store / "tiny" / "notes.txt").write_text("")
    (store / "README").write_text("")
    assert catalog.read(store).problems == ()


def test_evidence_is_the_paired_interval_of_the_kept_scores(store: Path) -> None:
    entries = catalog.read(store).models["tiny"]
    low = catalog.evidence(entries)["fp32"]["int8"]
    kept = {name: load_file(entries[name].folder / "scores.safetensors") for name in entries}
    expected = paired_interval(
        kept["int8"]["scores"], kept["fp32"]["scores"], kept["fp32"]["clusters"]
    )[1]
    assert low == pytest.approx(expected, abs=1e-9)
    assert low == pytest.approx(entries["int8"].card.paired.low, abs=1e-9)


def test_scores_of_other_samples_are_not_paired(store: Path) -> None:
    folder = store / "tiny" / "int8"
    tensors = load_file(folder / "scores.safetensors")
    save_file({name: array[:-1] for name, array in tensors.items()}, folder / "scores.safetensors")
    reseal(folder)
    entries = catalog.read(store).models["tiny"]
    assert "int8" not in catalog.evidence(entries).get("fp32", {})
