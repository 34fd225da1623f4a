"""Every technique, by discovery."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from compressors import technique
from compressors.errors import NotApplicable, RecipeError
from compressors.recipe import parse
from compressors.technique import Network
from compressors.verify import weights_digest
from tests.compressors.few import Few, applied, context_of, few_for, short

NAMES = technique.names()
CHOOSING_NOTHING = {"bf16", "fp16", "int4-weights", "int8-dynamic", "int8-weights"}


class Doubling(nn.Module):
    """Nothing that any technique knows, and nothing to train."""

    def forward(self, image: Tensor) -> Tensor:
        return 2 * image.flatten(1)[:, :10]


class Unteachable(Few):
    def network(self) -> nn.Module:
        return Doubling()

    def student(self) -> None:  # type: ignore[override]
        return None


def test_the_techniques_of_the_bundled_recipes_are_there() -> None:
    assert {"bf16", "distil", "int8", "low-rank", "prune-channels"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused_by_name(name: str) -> None:
    with pytest.raises(RecipeError, match=r"steps\[0\].no_such_setting: unknown key"):
        parse(
            "[variants.fp32]\n[variants.x]\n"
            f'steps = [{{ technique = "{name}", no_such_setting = 1 }}]',
            "recipes.toml",
        )


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_described_and_numbers_are_bounded(name: str) -> None:
    for key, field in technique.get(name).Config.model_fields.items():
        assert field.description, key
        if field.annotation in (int, float):
            for value in (-1, 10**9):
                with pytest.raises(ValidationError, match=key):
                    technique.get(name).Config.model_validate({key: value})


@pytest.mark.parametrize("name", NAMES)
def test_a_network_with_nothing_to_act_on_is_refused(name: str) -> None:
    with pytest.raises(NotApplicable, match=name):
        applied(name, Unteachable())


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_has_the_same_outputs_and_is_not_what_came_in(name: str) -> None:
    task = few_for(name)
    inputs = torch.from_numpy(task.samples("validation").inputs["image"][:5])
    network = applied(name, task)
    assert network.module.eval()(inputs).shape == (5, 10)
    asked = technique.get(name).numerics
    if asked is None:
        assert weights_digest(network.module) != weights_digest(task.network())
    else:
        assert asked in (network.numerics.precision, network.numerics.weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_network(name: str) -> None:
    def once(seed: int) -> str:
        torch.manual_seed(seed)  # as the build does
        network = applied(name, few_for(name), seed)
        calibration = network.numerics.calibration
        seen = b"" if calibration is None else calibration.inputs["image"].tobytes()
        return weights_digest(network.module) + str(hash(seen))

    assert once(1) == once(1)
    if name not in CHOOSING_NOTHING:
        assert once(1) != once(2)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_not_changed(name: str) -> None:
    task = few_for(name)
    context = context_of(task)
    before = weights_digest(context.reference)
    found, config = short(name)
    found.apply(Network(task.network()), context, config)
    assert weights_digest(context.reference) == before


def takes_no_epochs(name: str) -> bool:
    field = technique.get(name).Config.model_fields.get("epochs")
    return field is not None and any(getattr(rule, "ge", None) == 0 for rule in field.metadata)


@pytest.mark.parametrize("name", [name for name in NAMES if takes_no_epochs(name)])
def test_fine_tuning_takes_the_epochs_asked_for_and_none_for_none(name: str) -> None:
    task, found = few_for(name), technique.get(name)
    task.network()  # trained at its first call
    settings = short(name)[1].model_dump(exclude={"epochs"}, exclude_unset=True)  # type: ignore[attr-defined]
    for epochs in (0, 2):
        steps = []
        handle = register_optimizer_step_pre_hook(lambda *_, steps=steps: steps.append(1))
        config = found.Config.model_validate({**settings, "epochs": epochs})
        module = found.apply(Network(task.network()), context_of(task), config).module
        handle.remove()
        assert len(steps) == epochs * (200 // 64)  # whole batches of what Few has
        assert not module.training


def test_calibration_is_drawn_from_the_training_split_without_repeats() -> None:
    found = technique.get("int8")
    network = found.apply(
        Network(Few().network()),
        context_of(Few()),
        found.Config.model_validate({"calibration_samples": 150, "fast_bias_correction": False}),
    )
    calibration, train = network.numerics.calibration, Few().samples("train")
    assert calibration is not None and len(calibration) == 150
    rows = {image.tobytes() for image in train.inputs["image"]}
    drawn = [image.tobytes() for image in calibration.inputs["image"]]
    assert set(drawn) <= rows and len(set(drawn)) == 150
    assert network.numerics.options == {"fast_bias_correction": False}
    more = found.Config.model_validate({"calibration_samples": 1000})
    whole = found.apply(Network(Few().network()), context_of(Few()), more).numerics.calibration
    assert whole is not None and len(whole) == 200


def test_a_technique_goes_on_from_another_s_network() -> None:
    task = Few()
    network = applied("low-rank", task)
    found, config = short("prune-channels")
    changed = found.apply(network, context_of(task), config)
    assert changed.module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("svd", 'rank_by = "energy", ratio = 0.3', "rank_by is 'energy', and ratio"),
        ("svd", "energy = 0.3", "rank_by is 'ratio', and energy"),
        ("svd", "cost = 0.3", "rank_by is 'ratio', and cost"),
        ("tucker", 'rank_by = "energy", ratio = 0.3', "rank_by is 'energy', and ratio"),
        ("tensor-train", "energy = 0.3", "rank_by is 'ratio', and energy"),
        ("int8-mixed", "keep = 1, max_drop = 0.1", "stay in float, and max_drop"),
        ("prune-channels", "ratio = 0.5, macs = 0.5", "macs says how much stays, and ratio"),
    ],
)  # fmt: skip
def test_settings_that_would_have_no_effect_are_refused(
    name: str, settings: str, told: str
) -> None:
    with pytest.raises(RecipeError, match=f"{told} would have no effect"):
        parse(
            f'[variants.fp32]\n[variants.x]\nsteps = [{{ technique = "{name}", {settings} }}]',
            "recipes.toml",
        )


@pytest.mark.parametrize("name", NAMES)
def test_what_a_card_keeps_of_the_settings_is_read_again(name: str) -> None:
    config = technique.get(name).Config()
    assert type(config).model_validate(config.model_dump()) == config
