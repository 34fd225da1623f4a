"""Weights removed with amends: exact where that can be worked out, better than none elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressors import technique
from compressors.errors import NotApplicable
from compressors.surgery.masks import sparsest
from compressors.surgery.obs import prune_rows, reconstruction_error
from compressors.surgery.observe import draw, observe, weights_of
from compressors.technique import Context, Network
from compressors.techniques import sparsegpt
from tests.compressors.kinds import CONVOLUTIONAL, PERCEPTRON, RECURRENT, TRANSFORMER, Kind

SPARSE = technique.get("sparsegpt")


def pruned(task: Kind, **settings: Any) -> nn.Module:
    config = SPARSE.Config.model_validate(settings)
    context = Context(task, task.network(), 0, lambda _fraction, _text: None, {})
    return SPARSE.apply(Network(task.network()), context, config).module


def problem(outputs: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """A weight, and the Gram matrix of inputs that hang together, as a layer's do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    x = torch.randn(4 * columns, columns, generator=generator) @ mixing
    return torch.randn(outputs, columns, generator=generator), x.T @ x / len(x)


@settings(max_examples=40)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_one_removal_is_what_brute_force_finds(columns: int, seed: int) -> None:
    """Least squares over the columns after it, for each weight that could go; the least wins."""
    weight, gram = problem(1, columns, seed)
    w, h = weight[0].double(), gram.double()
    errors, solutions = [], []
    for j in range(columns):
        change = torch.zeros(columns, dtype=torch.double)
        change[j] = -w[j]
        after = slice(j + 1, columns)
        if j + 1 < columns:
            change[after] = torch.linalg.solve(h[after, after], h[after, j] * w[j])
        errors.append(float(change @ h @ change))
        solutions.append(w + change)
    best = min(range(columns), key=errors.__getitem__)
    found = prune_rows(weight, gram, sparsity=1 / columns, damping=1e-9)
    assert (found == 0).sum() == 1 and found[0, best] == 0
    torch.testing.assert_close(found[0].double(), solutions[best], rtol=1e-3, atol=1e-4)
    assert reconstruction_error(weight, found, gram) == pytest.approx(errors[best], rel=1e-2)


@settings(max_examples=30)
@given(
    st.integers(4, 12).map(lambda n: 4 * n),
    st.integers(0, 1000),
    st.sampled_from([0.3, 0.5, 0.7]),
    st.sampled_from([8, 16, 128]),
)
def test_the_error_is_at_most_that_of_magnitude_masks(
    columns: int, seed: int, sparsity: float, block: int
) -> None:
    weight, gram = problem(16, columns, seed)
    found = prune_rows(weight, gram, sparsity=sparsity, block=block)
    plain = weight * sparsest({"w": weight.abs()}, sparsity, "layer")["w"]
    assert reconstruction_error(weight, found, gram) <= reconstruction_error(weight, plain, gram)
    assert (found == 0).sum() == pytest.approx(weight.numel() * sparsity, abs=columns / block + 1)


@pytest.mark.parametrize(("stay", "of", "block"), [(2, 4, 128), (1, 4, 6), (4, 8, 8), (2, 3, 2)])
def test_a_pattern_keeps_exactly_n_of_every_m_columns(stay: int, of: int, block: int) -> None:
    weight, gram = problem(6, 24, 0)
    found = prune_rows(weight, gram, pattern=(stay, of), block=block)
    assert ((found != 0).reshape(6, -1, of).sum(2) == stay).all()


def test_inputs_that_are_always_zero_are_survived_and_cost_nothing() -> None:
    weight, gram = problem(4, 8, 0)
    gram[:, 2] = gram[2] = 0
    found = prune_rows(weight, gram, sparsity=1 / 8)
    assert found.isfinite().all() and not found[:, 2].any()
    assert prune_rows(weight, torch.zeros(8, 8)).isfinite().all()


@pytest.mark.parametrize("task", [CONVOLUTIONAL, PERCEPTRON, TRANSFORMER])
def test_each_layer_of_a_network_comes_out_nearer_than_by_magnitude(task: Kind) -> None:
    """On the inputs that the first layer sees in both, and in every layer the share asked for."""
    before, after = weights_of(task.network()), weights_of(pruned(task, samples=48))
    name = "3.weight" if task is CONVOLUTIONAL else next(iter(before))
    network = pruned(task, samples=48)
    for layer, weight in after.items():
        assert (weight == 0).double().mean() == pytest.approx(0.5, abs=0.02), layer
        assert torch.equal(weight, weights_of(network)[layer])
    start = task.network()
    if task is CONVOLUTIONAL:  # its second layer sees what the first one, pruned, puts out
        start[0].weight.data.copy_(after["0.weight"])  # type: ignore[index]
    gram = observe(start, task, draw(task, 48, 0), {"gram"}, only=[name])[name].gram
    assert gram is not None
    plain = before[name] * sparsest({"w": before[name].detach().abs()}, 0.5, "layer")["w"]
    ours, theirs = (
        reconstruction_error(before[name].flatten(1), changed.flatten(1), gram[0])
        for changed in (after[name], plain)
    )
    assert ours < theirs


def test_each_layer_is_given_what_comes_out_of_those_before_it() -> None:
    settings = {"samples": 16, "damping": 0.3}
    before, after = weights_of(PERCEPTRON.network()), weights_of(pruned(PERCEPTRON, **settings))
    first, second, *_ = before
    config = SPARSE.Config.model_validate(settings)
    found = {}
    for told in (True, False):
        network = PERCEPTRON.network()
        if told:
            weights_of(network)[first].data.copy_(after[first])
        samples = draw(PERCEPTRON, 16, 0)
        gram = observe(network, PERCEPTRON, samples, {"gram"}, only=[second])[second].gram
        assert gram is not None
        found[told] = sparsegpt.pruned(before[second], gram, config)
    assert torch.equal(found[True], after[second])
    damped_less = weights_of(pruned(PERCEPTRON, samples=16, damping=0.01))
    assert not torch.equal(damped_less[second], after[second])
    assert not torch.equal(found[False], after[second])


def test_groups_of_a_convolution_are_pruned_by_their_own_inputs() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spread, self.grouped = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.grouped(self.spread(x).relu()).mean((2, 3))  # type: ignore[no-any-return]

    network = pruned(Kind(Grouped), pattern="2:4", samples=8)
    kept = weights_of(network)["grouped.weight"] != 0
    assert (kept.sum(1) == 2).all()
    assert weights_of(network)["spread.weight"].all()


def test_zeros_stay_through_fine_tuning() -> None:
    once, trained = (pruned(TRANSFORMER, pattern="2:4", samples=8, epochs=e) for e in (0, 2))
    for name, weight in weights_of(once).items():
        other = weights_of(trained)[name]
        assert torch.equal(weight == 0, other == 0) and not torch.equal(weight, other)


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(NotApplicable, match=r"sparsegpt: .* lstm.weight_ih_l0, .* cannot be seen"):
        pruned(RECURRENT)
    with pytest.raises(NotApplicable, match=r"sparsegpt: no linear .* that 2:7 divides"):
        pruned(CONVOLUTIONAL, pattern="2:7")
