"""What weights see: inputs as the layer's own arithmetic shows them, zeros, gradients."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressors.surgery.observe import LayerStatistics, draw, observe, weights_of
from compressors.surgery.unfold import each, padding, unfold
from compressors.task import Samples, Task
from compressors.verify import weights_digest
from tests.compressors.kinds import CONVOLUTIONAL, KINDS, RECURRENT, TRANSFORMER, Kind


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    dimensions = draw(st.integers(1, 3))
    numbers = st.tuples(*[st.integers(1, 3)] * dimensions)
    groups = draw(st.integers(1, 2))
    kernel, stride, dilation = draw(numbers), draw(numbers), draw(numbers)
    same = stride == (1,) * dimensions and draw(st.booleans())
    around = "same" if same else draw(st.sampled_from(["valid", kernel]))
    make = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    mode = draw(st.sampled_from(["zeros", "replicate"]))
    layer = make(  # type: ignore[arg-type]
        2 * groups, 4, kernel, stride, around, dilation, groups, bias=False, padding_mode=mode
    )
    return layer, (8, 9, 7)[:dimensions]


@settings(max_examples=60)
@given(convolutions())
def test_the_unfolded_input_times_the_weight_is_the_convolution(
    made: tuple[nn.Module, tuple[int, ...]],
) -> None:
    layer, size = made
    x = torch.randn(3, layer.in_channels, *size, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    kernel, dilation = layer.kernel_size, layer.dilation
    if layer.padding_mode == "zeros":
        around, mode = padding(layer.padding, kernel, dilation), "constant"  # type: ignore[arg-type]
    else:
        around, mode = layer._reversed_padding_repeated_twice, "replicate"  # type: ignore[assignment]
    rows = unfold(
        nn.functional.pad(x, around, mode),
        kernel,  # type: ignore[arg-type]
        each(layer.stride, kernel),  # type: ignore[arg-type]
        dilation,  # type: ignore[arg-type]
        layer.groups,  # type: ignore[arg-type]
    )
    weight = layer.weight.detach().reshape(layer.groups, -1, rows.shape[-1])  # type: ignore[operator, union-attr, arg-type]
    product = torch.einsum("rgc,goc->rgo", rows, weight).reshape(3, -1, 4).transpose(1, 2)
    expected = layer(x).flatten(2)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(convolutions())
def test_the_gram_of_a_convolution_gives_the_power_of_its_outputs(
    made: tuple[nn.Module, tuple[int, ...]],
) -> None:
    """mean of y^2 over samples and positions = w G w^T, whatever the padding, stride or groups."""
    layer, size = made
    task = Inputs(layer, np.random.default_rng(0).random((5, layer.in_channels, *size)))  # type: ignore[arg-type]
    seen = observe(layer, task, task.samples("train"), {"gram"}, batch=2)["weight"]
    y = layer(torch.from_numpy(task.array)).flatten(2)
    expected = y.square().mean((0, 2))
    assert seen.rows == y.shape[0] * y.shape[2]
    torch.testing.assert_close(power(layer.weight, seen), expected, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


class Inputs(Task):
    name = "inputs"

    def __init__(self, network: nn.Module, array: np.ndarray) -> None:  # type: ignore[type-arg]
        self._network, self.array = network, array.astype(np.float32)

    def network(self) -> nn.Module:
        return self._network

    def samples(self, split: str) -> Samples:  # noqa: ARG002
        return Samples({"x": self.array}, np.zeros(len(self.array), np.int64))


def power(weight: Tensor, seen: LayerStatistics) -> Tensor:
    assert seen.gram is not None
    matrix = weight.detach().reshape(len(seen.gram), -1, seen.gram.shape[1])
    return torch.einsum("goc,gcd,god->go", matrix, seen.gram, matrix).flatten()


@pytest.mark.parametrize("name", KINDS)
def test_every_linear_and_convolutional_layer_is_seen_and_moments_are_the_gram_s_diagonal(
    name: str,
) -> None:
    task = KINDS[name]
    network = task.network()
    seen = observe(network, task, draw(task, 20, 0), {"moments", "gram"}, batch=7)
    assert list(seen) == list(weights_of(network))
    for weight, statistics in seen.items():
        if "lstm" in weight:
            assert statistics == LayerStatistics()
            continue
        assert statistics.moments is not None and statistics.gram is not None
        torch.testing.assert_close(
            statistics.moments, statistics.gram.diagonal(dim1=1, dim2=2), rtol=1e-4, atol=1e-6
        )


def test_the_projections_of_attention_see_what_they_multiply() -> None:
    """Against the outputs of the layers' own parts: attention calls none of its projections."""
    network, samples = TRANSFORMER.network(), draw(TRANSFORMER, 16, 0)
    seen = observe(network, TRANSFORMER, samples, {"gram"})
    layer = network.get_submodule("encoder.layers.0")
    attention = layer.self_attn
    assert isinstance(attention, nn.MultiheadAttention)
    with torch.no_grad():
        x = network.embedding(torch.from_numpy(samples.inputs["ids"]))  # type: ignore[operator]
        y = attention(x, x, x, need_weights=False)[0] - attention.out_proj.bias
        into = x @ attention.in_proj_weight.T
    for name, weight, out in (
        ("in_proj_weight", attention.in_proj_weight, into),
        ("out_proj.weight", attention.out_proj.weight, y),
    ):
        statistics = seen[f"encoder.layers.0.self_attn.{name}"]
        torch.testing.assert_close(
            power(weight, statistics), out.square().mean((0, 1)), rtol=1e-4, atol=1e-6
        )


class Crossing(nn.Module):
    """Keys of another width than queries, and a packed projection of two different inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.MultiheadAttention(8, 2, batch_first=True)
        self.separate = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.packed(x, x.flip(1), x.flip(1))[0]
        return self.separate(y, x[..., :4], x[..., :4])[0].mean(1)  # type: ignore[no-any-return]


def test_a_packed_projection_of_different_inputs_has_none_to_show() -> None:
    task = Inputs(Crossing(), np.random.default_rng(0).random((6, 3, 8)))
    seen = observe(task.network(), task, task.samples("train"), {"moments"})
    assert seen["packed.in_proj_weight"].moments is None
    assert seen["packed.out_proj.weight"].moments is not None
    keys = seen["separate.k_proj_weight"].moments
    assert keys is not None
    expected = torch.from_numpy(task.array[..., :4]).square().mean((0, 1))
    torch.testing.assert_close(keys[0], expected)


def test_zeros_are_counted_after_norm_addition_and_relu() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.relu(self.a(x), inplace=True)
            self.first = x
            x = torch.relu(x + self.norm(self.b(x)))
            self.second = x
            return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    task = Kind(Block)
    network, samples = task.network(), draw(task, 12, 0)
    with torch.no_grad():
        network.norm.bias.fill_(-0.6)  # type: ignore[union-attr, operator]
    seen = observe(network, task, samples, {"zeros"}, batch=12)
    for name, kept in (("a", network.first), ("b", network.second)):
        assert isinstance(kept, Tensor)
        share = (kept == 0).double().mean((0, 2, 3))
        zeros = seen[f"{name}.weight"].zeros
        assert zeros is not None and 0 < share.mean() < 1
        torch.testing.assert_close(zeros, share)
    assert seen["head.weight"].zeros is None


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_those_of_the_loss_and_nothing_is_left_behind(name: str) -> None:
    task = KINDS[name]
    network, samples = task.network().requires_grad_(False), draw(task, 10, 1)
    before = weights_digest(network)
    one = observe(network, task, samples, {"gradient"}, batch=3)
    both = observe(network, task, samples, {"gradient", "squared_gradient"})
    assert weights_digest(network) == before
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())

    own = copy.deepcopy(network).requires_grad_(True)
    inputs = [torch.from_numpy(a) for a in samples.inputs.values()]
    task.loss((own(*inputs),), torch.from_numpy(samples.targets)).backward()  # type: ignore[no-untyped-call]
    for weight, parameter in weights_of(own).items():
        mean, square = both[weight].gradient, both[weight].squared_gradient
        assert mean is not None and square is not None and parameter.grad is not None
        torch.testing.assert_close(mean, parameter.grad, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(one[weight].gradient, mean, rtol=1e-3, atol=1e-6)
        assert (square >= mean.square() * 0.999 - 1e-12).all()  # Jensen


def test_weights_are_named_and_a_shared_one_is_listed_once() -> None:
    assert set(weights_of(RECURRENT.network())) == {
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm.weight_ih_l1",
        "lstm.weight_hh_l1",
        "head.weight",
    }
    shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    shared[1].weight = shared[0].weight
    assert list(weights_of(shared)) == ["0.weight"]
    task = Inputs(shared, np.ones((3, 4)))
    assert observe(shared, task, task.samples("train"), {"moments"})["0.weight"].rows == 6


def test_only_some_weights_can_be_looked_at() -> None:
    network, samples = CONVOLUTIONAL.network(), draw(CONVOLUTIONAL, 4, 0)
    some = ["3.weight", "10.weight"]
    assert list(observe(network, CONVOLUTIONAL, samples, {"gram"}, only=some)) == some
    with pytest.raises(ValueError, match="only: no weight called nowhere"):
        observe(network, CONVOLUTIONAL, samples, {"gram"}, only=["nowhere"])


def test_samples_are_drawn_by_seed_without_repeats() -> None:
    first, again, other = (draw(CONVOLUTIONAL, 10, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.inputs["image"], again.inputs["image"])
    assert not np.array_equal(first.inputs["image"], other.inputs["image"])
    assert len({image.tobytes() for image in first.inputs["image"]}) == 10
    assert len(draw(CONVOLUTIONAL, 1000, 0)) == 48
