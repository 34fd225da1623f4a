"""One look at a real store: what comes into the copy, what never does, and what stays."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from gateway.lifecycle import catalog
from gateway.lifecycle.signature import NotSigned
from gateway.lifecycle.watch import Watch
from gateway.store import sync as module
from gateway.store.cache import Cache
from gateway.store.remote import Object, Remote, Stopped
from gateway.store.sync import Said, Sync
from tests.gateway.store import servers
from tests.stores import seal, write_three, write_variant

ROOMY = 1 << 30


class Rig:
    """A store at a URL, which is a folder here, and its copy."""

    def __init__(self, tmp_path: Path) -> None:
        self.store = tmp_path / "store"
        self.store.mkdir()
        self.cache = Cache(tmp_path / "copy")
        self.remote = Remote(f"file://{self.store}")
        self.sync = self.anew()

    def anew(self, most_bytes: int = ROOMY, **more: Any) -> Sync:
        """As another process would."""
        return Sync(self.remote, self.cache, most_bytes=most_bytes, **more)

    def look(self) -> Said:
        return self.sync.look(wait=True)

    def served(self) -> list[str]:
        found = catalog.read(self.cache.folder)
        assert not found.problems
        return [f"{model}/{name}" for model, entries in found.models.items() for name in entries]

    def write(self, variant: str, **more: Any) -> Path:
        shutil.rmtree(self.store / "echo" / variant, ignore_errors=True)
        return write_variant(self.store, "echo", variant, **more)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with servers.s3() as served:
        yield served


THREE = ["echo/fp32", "echo/int8", "echo/small"]


@pytest.mark.parametrize("scheme", ["file", "memory", "http", "s3", "ftp"])
def test_each_kind_of_store(
    scheme: str, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, copy = tmp_path / "store", Cache(tmp_path / "copy")
    write_three(store)

    def follows(url: str, put: Any, remove: Any) -> None:
        remote = Remote(url)

        def look() -> list[str]:
            said = Sync(remote, copy, most_bytes=ROOMY).look(wait=True)
            assert said.unreadable == "" and said.left_out == {}
            found = catalog.read(copy.folder)
            assert not found.problems
            return [f"{model}/{name}" for model, own in found.models.items() for name in own]

        assert look() == THREE
        shutil.rmtree(store / "echo" / "int8")
        write_variant(store, "echo", "int8", accuracy=0.93)
        put()
        assert look() == THREE
        assert catalog.read(copy.folder).models["echo"]["int8"].card.accuracy.value == 0.93
        shutil.rmtree(store / "echo" / "small")
        remove("echo/small")
        assert look() == THREE[:2]

    if scheme == "file":
        follows(f"file://{store}", lambda: None, lambda _: None)
    elif scheme == "http":
        with servers.web(store) as url:
            follows(url, lambda: None, lambda _: None)
    elif scheme == "ftp":
        with servers.ftp(tmp_path) as url:
            follows(f"{url}/store", lambda: None, lambda _: None)
    elif scheme == "memory":
        name = f"/models-{uuid4().hex}"
        memory = fsspec.filesystem("memory")

        def fill() -> None:
            memory.put(str(store) + "/", name, recursive=True)

        fill()
        follows(f"memory:/{name}", fill, lambda key: memory.rm(f"{name}/{key}", recursive=True))
    else:
        client, environment = s3
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)

        def upload() -> None:
            servers.upload(client, store, prefix="some/models/")

        def delete(key: str) -> None:
            listed = client.list_objects_v2(Bucket="models", Prefix=f"some/models/{key}/")
            for one in listed["Contents"]:
                client.delete_object(Bucket="models", Key=one["Key"])

        upload()
        follows("s3://models/some/models", upload, delete)


def test_a_watch_of_the_copy_sees_whole_variants_alone(rig: Rig) -> None:
    """As they are uploaded: file by file, the manifest before the rest, and one by one removed."""
    rig.write("fp32")
    rig.look()
    watch = Watch(rig.cache.folder)
    elsewhere = write_variant(rig.store.parent / "built", "echo", "int8", accuracy=0.94)
    target = rig.store / "echo" / "int8"
    target.mkdir()
    files = sorted(elsewhere.iterdir(), key=lambda path: path.name != "manifest.json")
    for path in files[:-1]:
        shutil.copy(path, target)
        said = rig.look()
        assert "is missing" in said.left_out["echo/int8"].why
        assert not watch.look()
    (target / files[-1].name).write_bytes(b"half of it")
    assert "has digest" in rig.look().left_out["echo/int8"].why
    assert not watch.look()
    shutil.copy(files[-1], target)
    assert rig.look().left_out == {}
    changes = watch.look()
    assert list(changes.found) == [("echo", "int8")] and not changes.broken
    for path in files[:-1]:
        (target / path.name).unlink()
        rig.look()
        assert not watch.look()
    (target / files[-1].name).unlink()
    target.rmdir()
    rig.look()
    assert watch.look().gone == {("echo", "int8")}


def test_a_replaced_variant_leaves_nothing_of_the_old_one(rig: Rig) -> None:
    rig.write("fp32", files={"weights": b"old" * 1000})
    rig.look()
    rig.write("fp32", accuracy=0.9)
    rig.look()
    assert rig.served() == ["echo/fp32"]
    assert not list(rig.cache.folder.rglob("weights"))
    assert not list(rig.cache.folder.glob(".pull-*"))


def test_the_sample_comes_along_and_goes_with_its_model(rig: Rig) -> None:
    rig.write("fp32")
    write_variant(rig.store, "other", "fp32")
    sample = rig.store / "echo" / "sample.json"
    (rig.store / "echo" / "frontier.html").write_text("not asked for")
    for text in ('{"inputs": []}', '{"inputs": [1]}'):
        sample.write_text(text)
        rig.look()
        assert (rig.cache.folder / "echo" / "sample.json").read_text() == text
    assert {path.name for path in (rig.cache.folder / "echo").iterdir()} == {"fp32", "sample.json"}
    shutil.rmtree(rig.store / "echo")
    rig.look()
    assert not (rig.cache.folder / "echo").exists()


def test_what_a_process_left_that_died_is_deleted(rig: Rig) -> None:
    rig.write("fp32")
    (rig.cache.folder / ".pull-dead").mkdir()
    (rig.cache.folder / ".pull-dead" / "half").write_bytes(b"x")
    rig.look()
    assert not list(rig.cache.folder.glob(".pull-*"))


def test_a_store_that_is_away_changes_nothing(rig: Rig) -> None:
    write_three(rig.store)
    rig.look()
    away = rig.store.with_name("away")
    rig.store.rename(away)
    assert "cannot be read" in rig.look().unreadable
    rig.store.mkdir()
    assert "nothing is there any more" in rig.look().unreadable
    assert rig.served() == THREE
    rig.store.rmdir()
    away.rename(rig.store)
    assert rig.look().unreadable == ""


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    """A server that fails for one model only: its variants stay."""
    write_three(tmp_path / "store")
    write_three(tmp_path / "store", "other")

    class Failing(Remote):
        broken = False

        def _by_folder(self) -> Iterator[dict[str, Any]]:
            for info in super()._by_folder():
                if self.broken and "/other/" in info["name"]:
                    raise OSError("no answer")
                yield info

    remote, cache = Failing(f"file://{tmp_path / 'store'}"), Cache(tmp_path / "copy")
    sync = Sync(remote, cache, most_bytes=ROOMY)
    assert sync.look(wait=True).unreadable == ""
    remote.broken = True
    assert "no answer" in sync.look(wait=True).unreadable
    assert len(cache.digests()) == 6


def test_what_was_not_whole_is_fetched_again_when_it_changes_or_after_a_while(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.write("fp32")
    spoilt = rig.write("int8")
    good = (spoilt / "echo.json").read_bytes()
    (spoilt / "echo.json").write_bytes(b"[]")
    copied: list[str] = []
    plain = Remote.copy

    def copy(self: Remote, one: Object, *more: Any) -> None:
        copied.append(one.path)
        plain(self, one, *more)

    monkeypatch.setattr(Remote, "copy", copy)
    rig.look()
    copied.clear()
    assert "echo/int8" in rig.look().left_out and copied == []
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    assert "echo/int8" in rig.look().left_out and copied != []
    (spoilt / "echo.json").write_bytes(good)
    assert rig.look().left_out == {}
    assert rig.served() == THREE[:2]


def test_nothing_leaves_the_copy_and_nothing_strange_comes_in(rig: Rig, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    name = f"/odd-{uuid4().hex}"
    write_variant(rig.store, "echo", "fp32")
    for path in (rig.store / "echo" / "fp32").iterdir():
        for place in ("echo/fp32", "../fp32", "echo/..", "echo/fp32/deep", ".hidden/fp32", "e c/x"):
            memory.pipe(f"{name}/{place}/{path.name}", path.read_bytes())
    memory.pipe(f"{name}/echo/fp32/../../../escaped", b"x")
    memory.pipe(f"{name}/echo/fp32/not-vouched-for", b"x")
    cache = Cache(tmp_path / "within" / "copy")
    said = Sync(Remote(f"memory:/{name}"), cache, most_bytes=ROOMY).look(wait=True)
    assert said.left_out == {}
    found = {path.relative_to(tmp_path / "within") for path in (tmp_path / "within").rglob("*")}
    files = {str(path) for path in found if (tmp_path / "within" / path).is_file()}
    own = {"manifest.json", "card.json", "echo.json", "scores.safetensors"}
    assert files == {
        *(f"copy/echo/fp32/{file}" for file in own), "copy/.lock", "copy/.state.json"
    }  # fmt: skip


def test_an_object_store_may_hold_any_key(
    rig: Rig, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no folder in it to look into: every key is listed."""
    client, environment = s3
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    rig.write("fp32")
    for path in (rig.store / "echo" / "fp32").iterdir():
        for place in ("echo/fp32", ".hidden/fp32", "echo/.fp32", "Echo/fp32", "deep/echo/fp32"):
            key = f"odd/{place}/{path.name}"
            client.put_object(Bucket="models", Key=key, Body=path.read_bytes())
    cache = Cache(tmp_path / "other")
    said = Sync(Remote("s3://models/odd"), cache, most_bytes=ROOMY).look(wait=True)
    assert said.left_out == {} and list(said.manifests) == ["echo/fp32"]
    own = {path.name for path in cache.folder.iterdir() if path.is_dir()}
    assert own == {"echo"}


def test_a_manifest_cannot_name_a_file_elsewhere(rig: Rig) -> None:
    folder = rig.write("fp32")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../../escaped"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "not a manifest" in rig.look().left_out["echo/fp32"].why


def test_a_variant_that_does_not_fit_is_left_out(rig: Rig, tmp_path: Path) -> None:
    rig.write("fp32")
    rig.write("int8", files={"weights": b"x" * 1_000_000})
    rig.sync = rig.anew(most_bytes=900_000)
    assert "do not fit" in rig.look().left_out["echo/int8"].why
    assert rig.served() == ["echo/fp32"]
    # A web server says no sizes beforehand: the bytes are counted as they come.
    with servers.web(rig.store) as url:
        copy = Cache(tmp_path / "other")
        said = Sync(Remote(url), copy, most_bytes=900_000).look(wait=True)
    assert "do not fit" in said.left_out["echo/int8"].why
    assert copy.held_bytes() < 900_000
    rig.sync = rig.anew()
    assert rig.look().left_out != {}, "nothing has changed in the store: it waits"
    rig.write("int8", accuracy=0.94)
    assert rig.look().left_out == {}


def test_a_copy_that_was_damaged_is_fetched_again(rig: Rig) -> None:
    rig.write("fp32")
    rig.look()
    (rig.cache.path(("echo", "fp32")) / "echo.json").write_bytes(b"[]")
    rig.anew().look(wait=True)
    assert rig.served() == ["echo/fp32"]


def test_an_unsigned_build_does_not_take_the_place_of_a_signed_one(rig: Rig) -> None:
    signed = rig.write("fp32", files={"seal": b"owner's"})

    def check(folder: Path) -> None:
        if not (folder / "seal").exists():
            raise NotSigned("it is not signed")

    rig.sync = rig.anew(check=check)
    rig.look()
    (signed / "seal").unlink()
    seal(signed)
    assert "not signed" in rig.look().left_out["echo/fp32"].why
    assert (rig.cache.path(("echo", "fp32")) / "seal").exists()


def test_one_process_looks_for_all(rig: Rig) -> None:
    rig.write("fp32")
    first = rig.look()
    rig.write("int8")
    assert rig.anew().look(wait=True, fresh_s=60) == first
    with rig.cache.locked(wait=True):
        assert rig.anew().look(wait=False) == first
    assert rig.served() == ["echo/fp32"]
    rig.anew().look(wait=False)
    assert rig.served() == THREE[:2]


_LOOKS = """
import sys
from pathlib import Path
from gateway.store.cache import Cache
from gateway.store.remote import Remote
from gateway.store.sync import Sync
said = Sync(Remote(sys.argv[1]), Cache(Path(sys.argv[2])), most_bytes=1 << 30).look(wait=True)
assert not said.unreadable and not said.left_out, said
"""


def test_several_processes_share_one_copy(rig: Rig) -> None:
    write_three(rig.store)
    command = [sys.executable, "-c", _LOOKS, rig.remote.url, str(rig.cache.folder)]
    started = [subprocess.Popen(command) for _ in range(3)]
    assert [one.wait(60) for one in started] == [0, 0, 0]
    assert rig.served() == THREE


def test_a_look_that_is_given_up_leaves_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.write("fp32")
    begun = threading.Event()
    plain = Remote.copy

    def copy(self: Remote, one: Object, target: Path, take: Any) -> None:
        begun.set()
        rig.sync.stop()
        plain(self, one, target, take)

    monkeypatch.setattr(Remote, "copy", copy)
    with pytest.raises(Stopped):
        rig.look()
    assert begun.is_set()
    assert rig.served() == [] and not list(rig.cache.folder.glob(".pull-*"))


_SERVES_A_FOLDER = """
import sys
import gateway.app, gateway.cli.store
from gateway.settings import Settings
Settings(models="models")
print([name for name in ("fsspec", "aiohttp", "s3fs", "botocore") if name in sys.modules])
"""


def test_who_serves_a_folder_loads_nothing_of_it() -> None:
    command = [sys.executable, "-c", _SERVES_A_FOLDER]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"
