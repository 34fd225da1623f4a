"""Batch norm statistics against those computed by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressors import technique, training
from compressors.errors import NotApplicable
from compressors.task import Samples
from compressors.technique import Network
from compressors.techniques.batch_norm import estimate
from tests.compressors.few import Few, context_of

RANDOM = np.random.default_rng(0)


def quiet(_fraction: float, _text: str) -> None: ...


def samples(*shape: int) -> Samples:
    x = 5 + 3 * RANDOM.standard_normal(shape, dtype=np.float32)
    return Samples({"x": x}, np.zeros(len(x)))


def norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(4), (50, 4)),
        (nn.BatchNorm1d(4), (50, 4, 7)),
        (nn.BatchNorm2d(4), (50, 4, 5, 6)),
        (nn.BatchNorm3d(4), (50, 4, 3, 2, 2)),
    ],
)
@pytest.mark.parametrize("batch_size", [7, 50])
def test_they_are_those_of_all_samples_however_batched(
    layer: _BatchNorm, shape: tuple[int, ...], batch_size: int
) -> None:
    given = samples(*shape)
    estimate(layer, [layer], given, batch_size, quiet)
    by_channel = np.moveaxis(given.inputs["x"], 1, 0).reshape(4, -1).astype(np.float64)
    mean, variance = torch.from_numpy(by_channel.mean(1)), by_channel.var(1, ddof=1)
    torch.testing.assert_close(layer.running_mean, mean.float())
    torch.testing.assert_close(layer.running_var, torch.from_numpy(variance).float())


def test_in_one_batch_they_are_torchs_own_through_all_layers() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)
    )
    twin, given = copy.deepcopy(network), samples(20, 2, 8, 8)
    estimate(network, norms(network), given, 20, quiet)
    for layer in norms(twin):
        layer.momentum = 1.0
    with torch.no_grad():
        twin.train()(torch.from_numpy(given.inputs["x"]))
    for own, other in zip(norms(network), norms(twin), strict=True):
        torch.testing.assert_close(own.running_mean, other.running_mean)
        torch.testing.assert_close(own.running_var, other.running_var)
    assert not any(module.training for module in network.modules())


def test_a_layer_used_twice_sees_both_and_one_that_is_not_reached_keeps_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.idle = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(self.drop(x) + 10)  # type: ignore[no-any-return]

    network, given = Twice(), samples(40, 1)
    estimate(network, norms(network), given, 40, quiet)
    # Without dropout: half of the values are x, half x + 10.
    mean = float(given.inputs["x"].mean()) + 5
    assert network.norm.running_mean is not None and network.idle.running_mean is not None
    assert float(network.norm.running_mean) == pytest.approx(mean, rel=1e-4)
    assert float(network.idle.running_mean) == 0


def test_it_wins_back_what_changed_weights_cost_and_trains_nothing() -> None:
    task, validation = Few(), Few().samples("validation")
    network = task.network()
    with torch.no_grad():
        network[0].weight *= 3  # type: ignore[index, operator]
        network[3].bias += 2  # type: ignore[index, operator]
    before = training.validation_score(network, task, validation)
    weights = {name: p.clone() for name, p in network.named_parameters()}
    found = technique.get("batch-norm")
    changed = found.apply(Network(network), context_of(task), found.Config()).module
    after = training.validation_score(changed, task, validation)
    reference = training.validation_score(task.network(), task, validation)
    assert after > reference - 0.03 and after > before + 0.05
    for name, parameter in changed.named_parameters():
        assert torch.equal(parameter, weights[name]) and parameter.grad is None


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.BatchNorm2d(1, track_running_stats=False)],
)
def test_a_network_without_statistics_is_refused(network: nn.Module) -> None:
    found = technique.get("batch-norm")
    with pytest.raises(NotApplicable, match="batch-norm: no batch norm layer with running"):
        found.apply(Network(network), context_of(Few()), found.Config())
