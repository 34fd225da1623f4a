"""What archives from outside may hold, and what is left of those that are refused."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.lifecycle import archive, intake
from router.errors import InvalidRequest, TooLarge
from tests.stores import write_variant


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def packed(path: Path, mode: str, *folders: Path) -> Path:
    with tarfile.open(path, mode) as tar:
        for folder in folders:
            for each in folder.iterdir():
                tar.add(each, each.name)
    return path


def member(size: int = 0, **members: Any) -> bytes:
    """The header of one, in the name `weights.bin`."""
    made = tarfile.TarInfo("weights.bin")
    made.size = size
    for name, value in members.items():
        setattr(made, name, value)
    return made.tobuf(tarfile.GNU_FORMAT)


def bomb(path: Path, head: bytes, size: int) -> Path:
    """A gzip file of that head and that many zeros behind it."""
    packer = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        file.write(packer.compress(head))
        for _ in range(size >> 20):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_build_is_put_into_the_store(store: Path, tmp_path: Path, mode: str) -> None:
    folder = write_variant(tmp_path, "echo", "sent")
    sent = packed(tmp_path / "sent", mode, folder)
    for _ in range(2):  # the second in place of the first
        intake.receive(store, "echo", "sent", sent)
        names = {each.name: each.read_bytes() for each in (store / "echo/sent").iterdir()}
        assert names == {each.name: each.read_bytes() for each in folder.iterdir()}
        assert [each.name for each in store.iterdir()] == ["echo"]


def test_what_unpacks_to_far_more_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_SMALL_BYTES", 4 << 20)
    folder = tmp_path / "into"
    folder.mkdir()
    with pytest.raises(TooLarge, match="more than 4194304 bytes"):
        archive.unpack(bomb(tmp_path / "a", member(8 << 20), 8 << 20), folder)
    assert list(folder.iterdir()) == []
    # The names of members and their further headers are kept in memory whole.
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        with pytest.raises(InvalidRequest, match="a tar archive, plain or gzip") as refused:
            archive.unpack(bomb(tmp_path / "b", member(8 << 20, type=kind), 8 << 20), folder)
        assert str(refused.value.__cause__) == "headers over the limit"
    many = b"".join(member(name=f"f{number}") for number in range(1001))
    with pytest.raises(TooLarge, match="1000 files"):
        archive.unpack(bomb(tmp_path / "c", many, 1 << 20), folder)


def lzma_of(path: Path, folder: Path) -> None:
    path.write_bytes(lzma.compress(packed(path, "w", folder).read_bytes()))


def half(path: Path, folder: Path) -> None:
    whole = packed(path, "w:gz", folder).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lzma_of, "plain or gzip"),
        (half, "plain or gzip"),
        (lambda path, folder: packed(path, "w", folder, folder), "each file once"),
        (lambda path, _: path.write_bytes(member(type=tarfile.FIFOTYPE)), "plain files"),
        (lambda path, _: path.write_bytes(member(type=tarfile.LNKTYPE, linkname="x")), "plain f"),
        (lambda path, _: path.write_bytes(member(type=tarfile.GNUTYPE_SPARSE)), "plain files"),
        (lambda path, _: path.write_bytes(member(3)), "plain or gzip"),
        (lambda path, _: path.write_bytes(bytes(1024)), "a whole build of sent"),
    ],
)
def test_nothing_is_left_of_what_is_refused(
    store: Path, tmp_path: Path, spoil: Callable[[Path, Path], object], why: str
) -> None:
    sent = tmp_path / "sent"
    spoil(sent, write_variant(tmp_path, "echo", "sent"))
    with pytest.raises(InvalidRequest, match=why):
        intake.receive(store, "echo", "sent", sent)
    assert list(store.iterdir()) == []


def test_nothing_is_written_or_deleted_through_a_link(store: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = write_variant(elsewhere.parent / "built", "echo", "fp32")
    sent = packed(tmp_path / "a.tar", "w", folder)
    folder.parent.rename(elsewhere)
    (store / "echo").symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(InvalidRequest, match="no link out of it"):
        intake.receive(store, "echo", "int8", sent)
    with pytest.raises(InvalidRequest, match="no link out of it"):
        intake.remove(store, "echo", "fp32")
    assert sorted(elsewhere.rglob("*")) == before
