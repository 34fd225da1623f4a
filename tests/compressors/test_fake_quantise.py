"""Rounding to 8-bit values: its laws, its gradients, and layers that learn their steps."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.quantising.fake_quantise import (
    Quantised,
    as_int8,
    input_ranges,
    input_step,
    quantise_layers,
    round_through,
    rounded_weight,
    weight_steps,
)
from compressors.verify import weights_digest
from tests.compressors.few import Few


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_a_rounded_weight_is_near_and_has_255_values_a_channel(seed: int, scale: float) -> None:
    weight = scale * torch.randn(3, 40, generator=torch.Generator().manual_seed(seed))
    steps = weight_steps(weight)
    rounded = rounded_weight(weight, steps)
    assert ((rounded - weight).abs() <= steps[:, None] * 0.5001).all()
    whole = rounded / steps[:, None]
    assert torch.allclose(whole, whole.round(), atol=1e-3) and whole.abs().max() <= 127.001
    again = rounded_weight(rounded, weight_steps(rounded))
    assert torch.allclose(again, rounded, atol=float(1e-4 * steps.max()))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [((0, 5.1), (0.02, 0, 255)), ((-12.7, 1), (0.1, -128, 127)), ((0, 0), (1e-12, 0, 255))],
)
def test_the_step_of_activations(
    seen: tuple[float, float], expected: tuple[float, int, int]
) -> None:
    step, bottom, top = input_step(seen)
    assert (bottom, top) == expected[1:] and step == pytest.approx(expected[0])


def test_gradients_are_those_of_the_formula() -> None:
    x = torch.tensor([0.34, -5.0, 9.0, 0.06], requires_grad=True)
    log_step = torch.tensor(0.1).log().requires_grad_()
    step = log_step.exp()
    rounded = round_through(x, step, -8, 7)
    assert torch.allclose(rounded, torch.tensor([0.3, -0.8, 0.7, 0.1]))
    rounded.sum().backward()
    assert torch.equal(x.grad, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    # Inside round(x/s) - x/s, outside the bound: times s, the derivative of exp.
    assert log_step.grad.item() == pytest.approx(0.1 * ((3 - 3.4) - 8 + 7 + (1 - 0.6)), abs=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_a_quantised_layer_computes_nearly_what_the_layer_does(mode: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 9, 9)
    layer = nn.Conv2d(8, 6, 3, padding=1, stride=2)
    quantised = Quantised(layer, (x.min().item(), x.max().item())).train(mode)
    expected = layer(x)
    error = (quantised(x) - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.02


def test_train_and_eval_mode_agree() -> None:
    torch.manual_seed(0)
    x, quantised = torch.rand(5, 16), Quantised(nn.Linear(16, 4), (0.0, 1.0))
    assert torch.allclose(quantised.train()(x), quantised.eval()(x), atol=1e-5)


def test_ranges_and_places_of_layers() -> None:
    task = Few()
    network = task.network()
    ranges = input_ranges(network, task, task.samples("validation"), ["0", "3", "10"])
    assert set(ranges) == {"0", "3", "10"} and ranges["0"] == (0.0, 1.0)
    shared = nn.Linear(4, 4)
    twice = nn.Sequential(shared, nn.ReLU(), shared)
    quantise_layers(twice, {"0": (-1.0, 1.0)})
    assert twice[0] is twice[2] and isinstance(twice[0], Quantised)


def test_a_layer_rounded_for_a_while_is_put_back() -> None:
    network = Few().network()
    x = torch.from_numpy(Few().samples("validation").inputs["image"])
    before, digest = network(x), weights_digest(network)
    with as_int8({network[0]: (0.0, 1.0)})(network[0]):
        assert not torch.equal(network(x), before)
        weight = copy.deepcopy(network[0].weight)
    assert torch.equal(network(x), before) and weights_digest(network) == digest
    assert not torch.equal(weight, network[0].weight)
