"""Builds that are killed, that share a store, that run out of disk: real processes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from compressors import artifact
from tests.compressors.builds import COMMAND, TASK

RECIPES = """
[variants.fp32]
[variants.distilled]
steps = [{ technique = "distil", epochs = 10, learning_rate = 0.02 }]
[variants.int8]
steps = [{ technique = "int8", calibration_samples = 20 }]
"""
VARIANTS = {"fp32", "distilled", "int8"}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """`gearshift compress` of the tiny task; `--out` is to be added."""
    (tmp_path / "recipes.toml").write_text(RECIPES)
    arguments = ["--recipes", tmp_path / "recipes.toml", "--cache", tmp_path / "cache"]
    return [*COMMAND, TASK, *map(str, arguments), "--engine", "openvino"]


def start(command: list[str], out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def whole(store: Path) -> set[str]:
    """The variants there, each of which is whole; and nothing else but what is meant to be."""
    names = {path.name for path in (store / "tiny").iterdir()}
    assert {name for name in names if name.startswith(".")} == set()
    variants = names - {"frontier.html", "frontier.png", "sample.json"}
    for name in variants:
        assert artifact.read(store / "tiny" / name).variant == name
    return variants


def test_what_kill_9_leaves_is_gone_on_from(command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "models"
    process = start(command, out)
    assert process.stdout is not None
    for line in process.stdout:
        if "distilled: lowering" in line:  # it is trained, and in the cache
            process.kill()
            break
    process.wait()
    process.stdout.close()
    left = {path.name for path in (out / "tiny").iterdir() if not path.name.startswith(".")}
    assert left == {"fp32"}
    artifact.read(out / "tiny" / "fp32")

    planned = subprocess.run(
        [*command, "--out", str(out), "--dry-run"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"fp32 +│ in the store ", planned)
    assert re.search(r"distilled +│ to be built +│ distil \(cached\)", planned)

    again = start([*command, "--resume"], out)
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 0, told
    assert "fp32: in the store already" in told
    assert "distilled: 1 of 1 steps from the cache" in told
    assert whole(out) == VARIANTS


def test_two_builds_into_one_store_share_the_work(command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "models"
    processes = [start(command, out) for _ in range(2)]
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    built = [re.findall(r"\] (\S+): built in", text) for text in told]
    assert sorted(built[0] + built[1]) == sorted(VARIANTS)  # each by one of them
    kept = [re.findall(r"\] (\S+): in the store already", text) for text in told]
    assert sorted(built[0] + kept[0]) == sorted(built[1] + kept[1]) == sorted(VARIANTS)
    assert any("another build is making it" in text for text in told)
    assert whole(out) == VARIANTS


def test_a_full_disk_is_told_and_leaves_the_store_whole(command: list[str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # Room for the reference and a part of the next variant.
    mount = ["mount", "-t", "tmpfs", "-o", "size=130k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        process = start([*command, "--only", "distilled"], disk / "models")
        told, _ = process.communicate(timeout=300)
        assert process.returncode == 1, told
        assert re.search("No space left on device|the disk is full", told)
        assert "Traceback" not in told
        assert whole(disk / "models") <= {"fp32"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)
