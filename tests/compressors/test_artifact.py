"""The store: whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compressors import artifact
from compressors.artifact import Workspace
from compressors.errors import StoreError
from router.card import VariantCard


@pytest.fixture
def card(tiny_store: Path) -> VariantCard:
    return artifact.read(tiny_store / "tiny" / "fp32")


@pytest.fixture
def variant(tiny_store: Path, tmp_path: Path) -> Path:
    """A copy of a variant, to be damaged."""
    return Path(shutil.copytree(tiny_store / "tiny" / "fp32", tmp_path / "fp32"))


def write(home: Path, card: VariantCard, text: str = "weights", replace: bool = False) -> Path:
    with Workspace(home) as workspace:
        (workspace.folder("fp32") / "model.bin").write_text(text)
        return workspace.publish("fp32", card, replace=replace)


def test_what_is_written_is_read_back(tmp_path: Path, card: VariantCard) -> None:
    folder = write(tmp_path / "tiny", card)
    assert artifact.read(folder) == card
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.json",
        "manifest.json",
        "model.bin",
    ]
    # Nothing of the workspace is left.
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["fp32"]


def test_a_manifest_lists_every_file(tiny_store: Path) -> None:
    for folder in (tiny_store / "tiny").iterdir():
        listed = json.loads((folder / "manifest.json").read_text())["files"]
        assert set(listed) == {p.name for p in folder.iterdir()} - {"manifest.json"}


@pytest.mark.parametrize("name", ["model.bin", "model.xml", "card.json", "scores.safetensors"])
def test_one_flipped_bit_is_found(variant: Path, name: str) -> None:
    content = bytearray((variant / name).read_bytes())
    content[len(content) // 2] ^= 1
    (variant / name).write_bytes(content)
    with pytest.raises(StoreError, match=f"damaged: {name} has digest"):
        artifact.read(variant)


def test_missing_added_and_linked_files_are_found(variant: Path) -> None:
    (variant / "more.bin").write_text("x")
    with pytest.raises(StoreError, match=r"more.bin is not in the manifest"):
        artifact.read(variant)
    (variant / "more.bin").unlink()
    (variant / "model.bin").rename(variant.parent / "elsewhere")
    with pytest.raises(StoreError, match=r"model.bin is missing"):
        artifact.read(variant)
    (variant / "model.bin").symlink_to(variant.parent / "elsewhere")
    with pytest.raises(StoreError, match="not a plain file"):
        artifact.read(variant)


def test_a_manifest_that_is_none(variant: Path) -> None:
    (variant / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match="Manifest"):
        artifact.read(variant)
    (variant / "manifest.json").unlink()
    with pytest.raises(StoreError, match="No such file"):
        artifact.read(variant)


def test_nothing_is_overwritten_unasked(tmp_path: Path, card: VariantCard) -> None:
    folder = write(tmp_path, card, "first")
    with pytest.raises(StoreError, match="already exists"):
        write(tmp_path, card, "second")
    assert (folder / "model.bin").read_text() == "first"


def test_replacing_keeps_open_files_readable(tmp_path: Path, card: VariantCard) -> None:
    folder = write(tmp_path, card, "first")
    with (folder / "model.bin").open() as held:
        write(tmp_path, card, "second", replace=True)
        assert held.read() == "first"
    assert (folder / "model.bin").read_text() == "second"
    artifact.read(folder)


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Workspace(tmp_path) as workspace:
        (workspace.folder("fp32") / "model.bin").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_is_cleared_and_a_living_one_is_not(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from compressors.artifact import Workspace\n"
        "with Workspace(Path(sys.argv[1])) as w:\n"
        "    (w.folder('fp32') / 'model.bin').write_text('half'); print('ready', flush=True)\n"
        "    time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "ready\n"
        (theirs,) = tmp_path.iterdir()
        assert theirs.name.startswith(".")
        with Workspace(tmp_path):
            assert (theirs / "fp32" / "model.bin").read_text() == "half"
        os.kill(other.pid, signal.SIGKILL)
        other.wait(10)
        assert theirs.exists()
        with Workspace(tmp_path):
            assert not theirs.exists()
    finally:
        other.kill()
        other.stdout.close()
        other.wait(10)
    assert list(tmp_path.iterdir()) == []


def _racer(home: Path, card_json: str, text: str, start: Any, results: Any) -> None:
    card = VariantCard.model_validate_json(card_json)
    start.wait(60)
    try:
        write(home, card, text)
        results.put(text)
    except StoreError:
        results.put("")


def test_of_builds_at_once_one_wins_and_it_is_whole(tmp_path: Path, card: VariantCard) -> None:
    context = multiprocessing.get_context("fork")
    results, start = context.Queue(), context.Barrier(6)
    racers = [
        context.Process(
            target=_racer, args=(tmp_path, card.model_dump_json(), str(i) * 1000, start, results)
        )
        for i in range(6)
    ]
    for racer in racers:
        racer.start()
    winners = [text for text in (results.get(timeout=60) for _ in racers) if text]
    for racer in racers:
        racer.join(10)
    assert len(winners) == 1
    artifact.read(tmp_path / "fp32")
    assert (tmp_path / "fp32" / "model.bin").read_text() == winners[0]


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"), Workspace(tmp_path / "file" / "tiny"):
        pass
