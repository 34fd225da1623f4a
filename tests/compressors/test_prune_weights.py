"""Single weights: gone where the criterion says, still gone after training, and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressors import technique
from compressors.errors import NotApplicable
from compressors.surgery import criteria
from compressors.surgery.masks import sparsity_of
from compressors.surgery.observe import weights_of
from compressors.technique import Context, Network
from compressors.training import validation_score
from tests.compressors.few import Few, context_of
from tests.compressors.kinds import KINDS, PERCEPTRON, RECURRENT, Kind
from tests.compressors.test_observe import Crossing

PRUNE = technique.get("prune-weights")


def pruned(task: Kind, **settings: Any) -> nn.Module:
    config = PRUNE.Config.model_validate(settings)
    context = Context(task, task.network(), 0, lambda _fraction, _text: None, {})
    return PRUNE.apply(Network(task.network()), context, config).module


@pytest.mark.parametrize("criterion", criteria.NEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_through_training_and_everything_else_trains(kind: str, criterion: str) -> None:
    task = KINDS[kind]
    settings = {"criterion": criterion, "sparsity": 0.6, "samples": 8, "batch_size": 16}
    if kind == "recurrent" and criterion == "wanda":
        with pytest.raises(NotApplicable, match=r"prune-weights: wanda .* lstm.weight_hh_l0"):
            pruned(task, **settings)
        return
    once, trained = pruned(task, epochs=0, **settings), pruned(task, epochs=2, **settings)
    weights, after = weights_of(once), weights_of(trained)
    sizes = [(len(weight), weight[0].numel()) for weight in weights.values()]
    if criterion == "wanda":
        # In each output, whose few inputs leave the share at a whole number.
        zeros = sum(outputs * round(0.6 * inputs) for outputs, inputs in sizes)
    else:
        zeros = round(0.6 * sum(outputs * inputs for outputs, inputs in sizes))
    assert sum(sparsity_of(weights).zeros.values()) == zeros
    for name, weight in weights.items():
        assert torch.equal(weight == 0, after[name] == 0)
    original = dict(task.network().named_parameters())
    for name, parameter in trained.named_parameters():
        changed = parameter != original[name]
        if name in after:
            assert changed[parameter != 0].double().mean() > 0.5, name
        else:
            # Not all of it: units may be silent, and rows of an embedding used by no sample.
            assert changed.any(), name
            assert torch.equal(dict(once.named_parameters())[name], original[name])


@pytest.mark.parametrize("kind", ["convolutional", "transformer", "recurrent"])
def test_a_pattern_holds_in_every_layer_that_it_divides(kind: str) -> None:
    network = pruned(KINDS[kind], pattern="2:4", epochs=1)
    for name, weight in weights_of(network).items():
        if weight.shape[1] % 4:
            assert name == "0.weight" and not (weight == 0).any()
        else:
            kept = (weight != 0).movedim(1, -1).reshape(-1, 4).sum(1)
            assert (kept == 2).all()


def test_rounds_only_ever_add_zeros_and_end_at_the_share_asked_for() -> None:
    shares = []
    task = PERCEPTRON
    config = PRUNE.Config.model_validate(
        {"criterion": "random", "sparsity": 0.8, "rounds": 3, "epochs": 1, "scope": "layer"}
    )
    module = task.network()
    gone: dict[str, torch.Tensor] = {}

    def watch(_fraction: float, text: str) -> None:
        if "zero" in text:
            shares.append(text)
            for name, weight in weights_of(module).items():
                zeros = weight == 0
                assert (zeros | ~gone.get(name, zeros)).all()
                gone[name] = zeros

    PRUNE.apply(Network(module), Context(task, task.network(), 0, watch, {}), config)
    assert [text.partition("%")[0] for text in shares] == ["56.3", "77.0", "80.0"]
    for weight in weights_of(module).values():
        assert (weight == 0).sum() == round(weight.numel() * 0.8)


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_is_zero_already_counts_and_stays(epochs: int) -> None:
    already = Kind(lambda: pruned(PERCEPTRON, epochs=0))
    weights = weights_of(pruned(already, criterion="random", sparsity=0.7, epochs=epochs))
    sizes = sum(weight.numel() for weight in weights.values())
    assert sum(sparsity_of(weights).zeros.values()) == round(0.7 * sizes)
    for name, before in weights_of(already.network()).items():
        assert (weights[name][before == 0] == 0).all()


def test_the_least_weights_of_all_go_and_the_network_still_works() -> None:
    task = Few()
    config = PRUNE.Config.model_validate({"sparsity": 0.5, "epochs": 0})
    network = PRUNE.apply(Network(task.network()), context_of(task), config).module
    before, after = weights_of(task.network()), weights_of(network)
    all_before = torch.cat([w.detach().abs().flatten() for w in before.values()])
    zero = torch.cat([(w == 0).flatten() for w in after.values()])
    assert all_before[zero].max() <= all_before[~zero].min()
    validation = task.samples("validation")
    whole = validation_score(task.network(), task, validation)
    chance = PRUNE.Config.model_validate({"criterion": "random", "epochs": 0})
    random = PRUNE.apply(Network(task.network()), context_of(task), chance).module
    assert validation_score(network, task, validation) > validation_score(random, task, validation)
    assert validation_score(network, task, validation) > whole - 0.1


def test_a_network_frozen_for_inference_is_pruned_and_trained() -> None:
    task = Kind(lambda: PERCEPTRON.network().requires_grad_(False))
    network = pruned(task, criterion="obd", samples=4, epochs=1)
    assert sparsity_of(weights_of(network)).share == pytest.approx(0.5, abs=1e-3)


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(NotApplicable, match=r"prune-weights: no layer .* 2:7 divides"):
        pruned(RECURRENT, pattern="2:7", epochs=0)
    with pytest.raises(NotApplicable, match=r"prune-weights: wanda .* packed.in_proj_weight"):
        pruned(Kind(Crossed), criterion="wanda", epochs=0)
    with pytest.raises(NotApplicable, match=r"prune-weights: 50.0% .* already, and 40.0%"):
        pruned(Kind(lambda: pruned(PERCEPTRON, epochs=0)), sparsity=0.4, epochs=0)
    with pytest.raises(ValidationError, match="rounds: expected 1 with a pattern, got 2"):
        PRUNE.Config.model_validate({"pattern": "2:4", "rounds": 2})


class Crossed(Crossing):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image[:, 0, :, :8])


def test_a_layer_that_no_sample_reaches_is_left_to_wanda_as_it_is() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.unused = nn.Linear(576, 10), nn.Linear(576, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.flatten(1))  # type: ignore[no-any-return]

    network = pruned(Kind(Unused), criterion="wanda", epochs=0)
    zeros = sparsity_of(weights_of(network)).zeros
    assert zeros == {"head.weight": 2880, "unused.weight": 0}
    # Nothing hangs on it: its gradients are zeros, and it goes first.
    network = pruned(Kind(Unused), criterion="taylor", epochs=0)
    assert not network.unused.weight.any()  # type: ignore[operator, union-attr]
