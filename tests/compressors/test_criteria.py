"""Importances, against what they promise to be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressors.surgery import criteria
from compressors.surgery.observe import draw, observe, weights_of
from tests.compressors.kinds import CONVOLUTIONAL, KINDS, PERCEPTRON


@pytest.mark.parametrize("criterion", criteria.NEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_importances_have_the_weights_shape_and_are_not_negative(
    kind: str, criterion: criteria.Criterion
) -> None:
    task = KINDS[kind]
    network = task.network()
    weights = weights_of(network)
    seen = observe(network, task, draw(task, 8, 0), criteria.NEEDS[criterion])
    found = criteria.importances(criterion, weights, seen, 0)
    invisible = {name for name in weights if "lstm" in name and criterion == "wanda"}
    assert set(found) == set(weights) - invisible
    for name, importance in found.items():
        assert importance.shape == weights[name].shape
        assert (importance >= 0).all() and importance.sum() > 0
        assert not importance.requires_grad


def test_wanda_is_the_root_mean_square_of_what_a_weight_adds_to_its_output() -> None:
    network, samples = PERCEPTRON.network(), draw(PERCEPTRON, 16, 0)
    seen = observe(network, PERCEPTRON, samples, {"moments"})
    weight = weights_of(network)["1.weight"].detach()
    moments = seen["1.weight"].moments
    assert moments is not None
    x = torch.from_numpy(samples.inputs["image"]).flatten(1)
    added = (x[:, None, :] * weight[:3]).square().mean(0).sqrt()
    torch.testing.assert_close(criteria.wanda(weight, moments)[:3], added, rtol=1e-4, atol=1e-7)


def test_wanda_gives_each_group_of_a_convolution_its_own_inputs() -> None:
    weight = torch.ones(4, 2, 3, 3)
    moments = torch.stack([torch.full((18,), 4.0), torch.full((18,), 9.0)])
    importance = criteria.wanda(weight, moments)
    assert importance[:2].eq(2).all() and importance[2:].eq(3).all()


def test_taylor_is_the_change_of_the_loss_where_it_is_linear() -> None:
    network, samples = CONVOLUTIONAL.network(), draw(CONVOLUTIONAL, 24, 0)
    seen = observe(network, CONVOLUTIONAL, samples, {"gradient"}, batch=24)
    weights = weights_of(network)
    importance = criteria.importances("taylor", weights, seen, 0)["10.weight"]
    weight = weights["10.weight"]
    x, targets = torch.from_numpy(samples.inputs["image"]), torch.from_numpy(samples.targets)

    def loss() -> Tensor:
        with torch.no_grad():
            return nn.functional.cross_entropy(network(x).double(), targets)

    whole = loss()
    for row, column in ((0, 0), (3, 7), (9, 15)):
        kept, share = weight[row, column].item(), 0.05
        with torch.no_grad():
            weight[row, column] *= 1 - share
        change = (loss() - whole).abs() / share
        with torch.no_grad():
            weight[row, column] = kept
        torch.testing.assert_close(importance[row, column].double(), change, rtol=0.05, atol=1e-6)


def test_obd_is_exact_for_a_quadratic_loss_with_this_hessian() -> None:
    """h = diag(x^2) is the Hessian of (w x)^2 / 2; removing w changes that by w^2 x^2 / 2."""
    weight, x = torch.tensor([3.0, -2.0]), torch.tensor([0.5, 4.0])
    assert criteria.obd(weight, x.square()).tolist() == [1.125, 32.0]


def test_random_follows_its_seed() -> None:
    weights = {"a": torch.ones(5, 5), "b": torch.ones(5, 5)}
    once, again, other = (criteria.importances("random", weights, {}, seed) for seed in (0, 0, 1))
    assert torch.equal(once["a"], again["a"]) and torch.equal(once["b"], again["b"])
    assert not torch.equal(once["a"], other["a"]) and not torch.equal(once["a"], once["b"])


def test_a_channel_is_as_important_as_its_weights_together() -> None:
    importance = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert criteria.by_channel(importance).tolist() == [66, 210]
    assert criteria.by_channel(importance, 1).tolist() == [60, 92, 124]
    assert criteria.apoz(torch.tensor([1.0, 0.25])).tolist() == [0, 0.75]
