"""The watch and the directives: what changed is seen once, and what is gone for a moment is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.lifecycle.directives import Directives
from gateway.lifecycle.watch import Changes, Watch
from router.errors import InvalidRequest, NotReady
from router.rollout import AS_IT_LIES
from tests.stores import seal, write_variant


@pytest.fixture
def store(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32")
    write_variant(models, "echo", "int8")
    return models


def keys(changes: Changes) -> tuple[set[str], set[str], set[str]]:
    return (
        {variant for _, variant in changes.found},
        {variant for _, variant in changes.broken},
        {variant for _, variant in changes.gone},
    )


def test_what_is_there_at_first_is_known_and_nothing_is_seen_twice(store: Path) -> None:
    watch = Watch(store)
    assert not watch.look()
    write_variant(store, "echo", "small")
    assert keys(watch.look()) == ({"small"}, set(), set())
    assert not watch.look()
    shutil.rmtree(store / "echo" / "small")
    assert keys(watch.look()) == (set(), set(), {"small"})
    assert not watch.look()


def test_a_build_is_told_by_its_manifest(store: Path) -> None:
    watch = Watch(store)
    fresh = write_variant(store / ".fresh", "echo", "fp32", accuracy=0.5)
    shutil.rmtree(store / "echo" / "fp32")
    fresh.rename(store / "echo" / "fp32")
    ((_, entry),) = watch.look().found.items()
    assert entry.card.accuracy.value == 0.5
    # Hidden folders are builds in progress, and files are no variants.
    write_variant(store, "echo", "x").rename(store / "echo" / ".x")
    (store / "echo" / "frontier.png").write_bytes(b"")
    assert not watch.look()


def test_what_is_being_copied_is_looked_at_until_it_is_whole(store: Path) -> None:
    watch = Watch(store)
    whole = write_variant(store / ".whole", "echo", "small")
    place = store / "echo" / "small"
    place.mkdir()
    for path in sorted(whole.iterdir(), reverse=True):  # the manifest is not the last of them
        shutil.copy(path, place)
        last = watch.look()
        assert bool(last.found) == (len([*place.iterdir()]) == len([*whole.iterdir()]))
        assert not watch.look()
    assert keys(last) == ({"small"}, set(), set())


def test_one_that_was_broken_at_first_is_looked_at_file_by_file(store: Path) -> None:
    (store / "echo" / "int8" / "echo.json").write_text('{"delay_ms": 1}')
    watch = Watch(store)
    watch.doubt(("echo", "int8"))
    assert not watch.look()
    (store / "echo" / "int8" / "echo.json").write_text("{}")
    assert keys(watch.look()) == ({"int8"}, set(), set())


def test_a_store_that_is_gone_or_empty_all_at_once_is_no_wish(store: Path) -> None:
    watch = Watch(store)
    store.rename(store.parent / "elsewhere")
    gone = watch.look()
    assert "cannot be read" in gone.unreadable or "not a folder" in gone.unreadable
    store.mkdir()
    empty = watch.look()
    assert not gone and not empty
    assert empty.unreadable.endswith("nothing is there any more")
    store.rmdir()
    (store.parent / "elsewhere").rename(store)
    assert watch.look() == Changes()


def test_a_digest_that_is_wrong_names_the_file(store: Path) -> None:
    watch = Watch(store)
    folder = write_variant(store, "echo", "small")
    (folder / "echo.json").write_text('{"delay_ms": 1}')
    ((_, why),) = watch.look().broken.items()
    assert "echo.json has digest" in why
    seal(folder)
    assert keys(watch.look()) == ({"small"}, set(), set())


def test_what_is_doubtful_is_read_again(store: Path) -> None:
    watch = Watch(store)
    file = store / "echo" / "int8" / "echo.json"
    whole = file.read_bytes()
    file.write_text('{"delay_ms": 1}')
    assert not watch.look()  # the manifest is the same
    assert keys(watch.look([("echo", "int8")])) == (set(), {"int8"}, set())
    assert not watch.look([("echo", "int8")])
    file.write_bytes(whole)
    assert keys(watch.look()) == ({"int8"}, set(), set())
    # Or it was mended before anybody looked.
    assert keys(watch.look([("echo", "int8")])) == ({"int8"}, set(), set())


def test_a_link_is_no_variant_until_what_it_leads_to_is_in_its_place(store: Path) -> None:
    watch = Watch(store)
    place, elsewhere = store / "echo" / "int8", store.parent / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    assert watch.look().broken == {("echo", "int8"): "int8 is a link, not a folder"}
    assert not watch.look()
    place.unlink()
    elsewhere.rename(place)
    assert keys(watch.look()) == ({"int8"}, set(), set())


def test_directives_are_kept_and_seen_by_others(tmp_path: Path) -> None:
    mine, others = Directives(tmp_path), Directives(tmp_path)
    assert mine.of("echo") == AS_IT_LIES
    pinned = mine.change("echo", lambda rollout: rollout.pin("int8"))
    assert pinned.pinned == "int8" and mine.of("echo") == pinned
    assert mine.look() == set()  # its own change is no news
    assert others.of("echo") == AS_IT_LIES
    assert others.look() == {"echo"}
    assert others.of("echo") == pinned == Directives(tmp_path).of("echo")


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    store = tmp_path / "models"
    store.mkdir()
    state = store / ".gearshift"
    directives, fresh = Directives(state, store), Directives(state, store)
    directives.change("echo", lambda rollout: rollout.pin("fp32"))
    shutil.rmtree(store)
    with pytest.raises(NotReady, match="the state folder is gone"):
        directives.change("echo", lambda rollout: rollout.pin(None))
    with pytest.raises(NotReady, match="the store is gone"):
        fresh.change("echo", lambda rollout: rollout.pin(None))
    assert not store.exists()
    directives.look()
    assert directives.of("echo").pinned == "fp32"
    # A state folder of its own is made, parents and all.
    Directives(tmp_path / "a" / "b", store).change("echo", lambda rollout: rollout.pin("int8"))


def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    with pytest.raises(NotReady, match="cannot be written: Not a directory"):
        Directives(tmp_path / "state").change("echo", lambda rollout: rollout.pin("fp32"))


def test_a_change_that_makes_no_sense_is_not_kept(tmp_path: Path) -> None:
    directives = Directives(tmp_path)
    directives.change("echo", lambda rollout: rollout.pin("int8"))
    with pytest.raises(InvalidRequest, match="int8 is pinned, so it can neither be disabled"):
        directives.change("echo", lambda rollout: rollout.disable("int8"))
    assert Directives(tmp_path).of("echo").disabled == ()


def test_what_is_no_rollout_is_not_heeded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directives = Directives(tmp_path)
    pinned = directives.change("echo", lambda rollout: rollout.pin("int8"))
    path = tmp_path / "rollouts" / "echo.json"
    path.write_text('{"pinned": 3}')
    assert directives.look() == {"echo"}
    assert directives.of("echo") == pinned
    assert "the rollout of echo is none, and is not heeded" in caplog.text
    directives.look()
    assert caplog.text.count("is not heeded") == 1
    shutil.rmtree(tmp_path / "rollouts")  # a disk that is gone
    assert directives.look() == set()
    assert directives.of("echo") == pinned


_ALIASES = """
import sys
from pathlib import Path
from gateway.lifecycle.directives import Directives
directives = Directives(Path(sys.argv[1]))
Path(sys.argv[1], sys.argv[2]).touch()
while not all(Path(sys.argv[1], name).exists() for name in "ab"):
    pass
for number in range(100):
    directives.change("echo", lambda r: r.alias(f"{sys.argv[2]}-{number}", "fp32"))
"""


def test_no_change_is_lost_between_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ALIASES, str(tmp_path)]
    running = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in running] == [0, 0]
    aliases = Directives(tmp_path).of("echo").aliases
    assert aliases.keys() == {f"{name}-{number}" for name in "ab" for number in range(100)}
