"""The build cache: what is kept, what is refused, and what makes two networks the same."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressors import artifact, measure, provenance, recipe, training, usertask
from compressors.cache import Cache, default_folder
from compressors.errors import StoreError
from compressors.provenance import Provenance
from compressors.task import Samples
from tests.compressors.builds import TASK, build_of, extra_techniques


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(measure, "SECONDS_PER_BATCH_SIZE", 0.02)
    with extra_techniques():
        yield


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    network = nn.Linear(3, 2)
    assert cache.put("a", network) is None
    assert cache.holds("a")
    assert torch.equal(Cache(tmp_path / "c").get("a").weight, network.weight)
    assert cache.get("b") is None
    # The user's own, and nothing but the entry.
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["a.network"]


@pytest.mark.parametrize("place", [0, 64, 70, -1])
def test_a_damaged_entry_is_nothing_and_goes(tmp_path: Path, place: int) -> None:
    cache = Cache(tmp_path)
    cache.put("a", [1, 2, 3])
    content = bytearray((tmp_path / "a.network").read_bytes())
    content[place] ^= 1
    (tmp_path / "a.network").write_bytes(content)
    assert cache.get("a") is None
    assert not cache.holds("a")


def test_what_cannot_be_kept_is_told_and_no_error(tmp_path: Path) -> None:
    class Local(nn.Module):
        pass

    assert "Local" in str(Cache(tmp_path).put("a", Local()))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StoreError, match="others may write to the cache"):
        Cache(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345"):
        Cache(tmp_path)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    with pytest.raises(StoreError, match="is no folder"):
        Cache(tmp_path / "c")


def test_a_cache_in_the_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="lies in the store"):
        build_of("[variants.fp32]\n", tmp_path, cache=tmp_path / "tiny" / "cache")


def test_the_one_used_least_recently_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=30_000)
    for age, key in enumerate(["new", "old", "used"]):
        cache.put(key, np.zeros(1000))
        os.utime(tmp_path / f"{key}.network", (1000 - age, 1000 - age))
    assert cache.get("used") is not None  # used: the last to go now
    cache.put("next", np.zeros(1000))
    assert cache.holds("next") and cache.holds("used") and cache.holds("new")
    assert not cache.holds("old")
    assert "more than the cache may hold" in str(cache.put("huge", np.zeros(10_000)))


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/gearshift")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert default_folder() == Path("/home/x/.cache/gearshift")


def key(settings: str = "ratio = 0.5", seed: int = 0, weight: float = 0.0, **data: float) -> str:
    task = usertask.load(TASK)
    for split in ("train", "validation", "test"):
        samples = task.samples(split)
        inputs = {name: array + data.get(split, 0.0) for name, array in samples.inputs.items()}
        task._splits[split] = Samples(inputs, samples.targets)
    network = task.network()
    with torch.no_grad():
        next(network.parameters()).add_(weight)
    text = f'[variants.r]\n[variants.a]\nsteps = [{{ technique = "raises", {settings} }}]\n'
    return Provenance(task, network, seed).key(recipe.parse(text, "r").chain("a"))


def test_a_key_follows_from_all_that_went_in_and_from_nothing_else() -> None:
    assert key() == key()
    others = [key("ratio = 0.4"), key(seed=1), key(weight=0.1), key(train=1.0), key(validation=1.0)]
    assert len({key(), *others}) == 6
    assert key(test=1.0) == key()


def test_code_counts_with_all_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(name: str) -> str:
        provenance.code_digest.cache_clear()
        return provenance.code_digest(name)

    before, other = of("compressors.techniques.distil"), of("compressors.techniques.bf16")
    changed = tmp_path / "training.py"
    changed.write_text(Path(str(training.__file__)).read_text() + "\n# changed\n")
    found = provenance._source

    def source(name: str) -> bytes | None:
        return changed.read_bytes() if name == "compressors.training" else found(name)

    monkeypatch.setattr(provenance, "_source", source)
    assert of("compressors.techniques.distil") != before
    assert of("compressors.techniques.bf16") == other
    provenance.code_digest.cache_clear()


def test_a_second_build_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = """
        [variants.fp32]
        [variants.distilled]
        steps = [{ technique = "distil", epochs = 10, learning_rate = 0.02 }]
        [variants.distilled-int8]
        from = "distilled"
        steps = [{ technique = "int8", calibration_samples = 20 }]
    """
    cache = tmp_path / "cache"
    first = build_of(recipes, tmp_path / "one", cache=cache)
    (entry,) = cache.iterdir()
    assert entry.suffix == ".network"
    made = Cache(cache).get(entry.stem)

    def broken(*_arguments: object, **_settings: object) -> None:
        raise RuntimeError("trained again")

    monkeypatch.setattr(training, "train", broken)
    second = build_of(recipes, tmp_path / "two", cache=cache)
    assert {outcome.state for outcome in second.values()} == {"built"}
    for name in ("distilled", "distilled-int8"):
        cards = (first[name].card, second[name].card)
        assert cards[0] is not None and cards[1] is not None
        assert cards[0].accuracy == cards[1].accuracy
        # What it took to make, not to read back.
        assert cards[1].build_seconds > made.seconds
    names = ["model.bin", "scores.safetensors"]
    folders = [tmp_path / place / "tiny" / "distilled" for place in ("one", "two")]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    artifact.read(folders[1])

    without = build_of(recipes, tmp_path / "three", cache=None)
    assert "trained again" in without["distilled"].reason
    reseeded = build_of(recipes, tmp_path / "four", cache=cache, seed=1)
    assert "trained again" in reseeded["distilled"].reason
