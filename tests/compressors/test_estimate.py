"""`--dry-run`: what would be built, and how long that takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressors import estimate, usertask
from compressors.build import Options
from compressors.estimate import Forecast, duration, forecast
from compressors.progress import Silent
from compressors.recipe import parse
from tests.compressors.builds import TASK, build_of

RECIPES = """
[variants.fp32]
[variants.distilled]
steps = [{ technique = "distil", epochs = 20, learning_rate = 0.02 }]
[variants.distilled-int8]
from = "distilled"
steps = [{ technique = "int8", calibration_samples = 20 }]
"""


def forecasts(store: Path, **options: object) -> dict[str, Forecast]:
    asked = Options(store, engines=("openvino",), **options)  # type: ignore[arg-type]
    book = parse(RECIPES, "recipes.toml")
    return {each.variant: each for each in forecast(usertask.load(TASK), book, asked, Silent())}


def test_what_is_to_be_built_and_what_is_there(tmp_path: Path) -> None:
    store = tmp_path / "models"
    found = forecasts(store)
    assert not store.exists()  # nothing was written
    assert [each.state for each in found.values()] == ["to be built"] * 3
    assert found["distilled"].steps == "distil"
    assert found["distilled-int8"].steps == "distil + int8"

    assert {outcome.state for outcome in build_of(RECIPES, store).values()} == {"built"}
    again = forecasts(store)
    assert {(each.state, each.seconds) for each in again.values()} == {("in the store", 0.0)}
    assert {each.state for each in forecasts(store, seed=1).values()} == {"another build is there"}


def test_training_takes_as_long_as_it_has_epochs(tmp_path: Path) -> None:
    book = parse(
        "[variants.fp32]\n"
        + "".join(
            f'[variants.e{n}]\nsteps = [{{ technique = "distil", epochs = {n} }}]\n'
            for n in (100, 200, 400)
        ),
        "recipes.toml",
    )
    options = Options(tmp_path, engines=("openvino",))
    found = {f.variant: f.seconds for f in forecast(usertask.load(TASK), book, options, Silent())}
    first, second = found["e200"] - found["e100"], found["e400"] - found["e200"]
    assert 0 < first == pytest.approx(second / 2)


def test_what_goes_on_from_a_trained_network_does_not_train_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Left out, because it is not what is compared and a busy machine makes it long.
    monkeypatch.setattr(estimate._Pace, "batch_s", lambda _self, _batch: 0.0)
    threads = torch.get_num_threads()
    found = forecasts(tmp_path)
    assert torch.get_num_threads() == threads
    only = forecasts(tmp_path, only=frozenset({"distilled-int8"}))
    assert set(only) == {"fp32", "distilled-int8"}
    assert only["distilled-int8"].seconds > found["distilled-int8"].seconds


def test_rounds_train_again_and_iterations_of_mathematics_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate._Pace, "batch_s", lambda _self, _batch: 0.0)
    steps = {
        "once": '"cp", iterations = 1',
        "long": '"cp", iterations = 50',
        "round": '"prune-weights"',
        "rounds": '"prune-weights", rounds = 4',
    }
    book = parse(
        "[variants.fp32]\n"
        + "".join(
            f"[variants.{name}]\nsteps = [{{ technique = {step}, epochs = 50 }}]\n"
            for name, step in steps.items()
        ),
        "recipes.toml",
    )
    options = Options(tmp_path, engines=("openvino",))
    found = {f.variant: f.seconds for f in forecast(usertask.load(TASK), book, options, Silent())}
    assert found["long"] == found["once"]
    assert found["rounds"] > 1.2 * found["round"]  # what is measured on the way is in both


@pytest.mark.parametrize(
    ("seconds", "told"), [(7.4, "7 s"), (89, "89 s"), (100, "2 min"), (6000, "1.7 h")]
)
def test_durations_read_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told
