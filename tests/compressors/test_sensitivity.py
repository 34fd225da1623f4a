"""What changing a layer alone does to the network, and that it is put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from compressors.sensitivity import (
    LayerSensitivity,
    Probe,
    layer_sensitivity,
    layers_of,
    most_sensitive,
    replaced,
)
from compressors.task import Samples, Split, Task
from compressors.verify import weights_digest
from tests.compressors.few import Few


class Encoder(Task):
    """Regression by an nn.TransformerEncoder, which in eval mode calls none of its layers."""

    name = "encoder"
    outputs = ("y",)

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        return nn.TransformerEncoder(layer, 2).eval()

    def samples(self, split: Split) -> Samples:  # noqa: ARG002
        x = np.random.default_rng(0).normal(size=(6, 5, 16)).astype(np.float32)
        return Samples({"x": x}, np.zeros(6))

    def score(self, outputs: dict[str, np.ndarray], targets: np.ndarray) -> np.ndarray:
        return np.exp(-np.square(outputs["y"]).mean((1, 2))) + 0 * targets


def zeroed(layer: nn.Module) -> AbstractContextManager[None]:
    return replaced(layer, weight=torch.zeros_like(layer.weight))


def test_a_layer_set_to_zero_hurts_and_comes_back() -> None:
    task = Few()
    network, samples = task.network(), task.samples("validation")
    before = weights_digest(network)
    layers = layers_of(network, (nn.Conv2d, nn.Linear))
    assert layers == ["0", "3", "6", "10"]
    told: list[float] = []
    found = layer_sensitivity(
        network, task, samples, zeroed, layers, lambda fraction, _text: told.append(fraction)
    )
    assert [one.layer for one in found] == layers
    assert all(one.drop > 0.5 and one.error > 0.1 for one in found)
    assert weights_digest(network) == before and told == sorted(told) and len(told) == 4


def test_doing_nothing_has_no_effect_and_each_layer_its_own() -> None:
    task = Few()
    probe = Probe(task.network(), task, task.samples("validation"))

    def rounded(layer: nn.Module) -> AbstractContextManager[None]:
        step = layer.weight.abs().max() / 4
        return replaced(layer, weight=(layer.weight / step).round() * step)

    nothing = probe.effect(lambda layer: replaced(layer, weight=layer.weight), ["0"])
    assert (nothing.drop, nothing.error) == (0, 0)
    one, two = probe.effect(rounded, ["3"]), probe.effect(rounded, ["3", "6"])
    assert one.error > 0 and two.error > 0 and one.error != two.error


@pytest.mark.parametrize("part", ["self_attn", "linear1"])
def test_a_change_is_seen_inside_torch_s_own_transformer_layers(part: str) -> None:
    task = Encoder()

    @contextmanager
    def doubled(layer: nn.Module) -> Iterator[None]:
        handle = layer.register_forward_pre_hook(lambda _m, given: (2 * given[0], *given[1:]))
        try:
            yield
        finally:
            handle.remove()

    probe = Probe(task.network(), task, task.samples("validation"))
    assert probe.effect(doubled, [f"layers.0.{part}"]).error > 1e-3


def test_layers_within_a_layer_are_part_of_it() -> None:
    found = layers_of(Encoder().network(), (nn.Linear, nn.MultiheadAttention))
    parts = ("self_attn", "linear1", "linear2")
    assert found == [f"layers.{i}.{part}" for i in range(2) for part in parts]


def test_the_order_is_by_drop_then_by_error() -> None:
    a, b, c = (
        LayerSensitivity(0.0, 0.1, "a"),
        LayerSensitivity(0.0, 0.2, "b"),
        LayerSensitivity(0.1, 0.0, "c"),
    )
    assert most_sensitive([a, b, c]) == [c, b, a]


def test_a_replacement_of_another_shape_is_refused_and_errors_put_back() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"weight: expected shape \(2, 3\), got \(3, 2\)"):
        replaced(layer, weight=layer.weight.T).__enter__()
    before = weights_digest(layer)
    with pytest.raises(RuntimeError), zeroed(layer):
        raise RuntimeError
    assert weights_digest(layer) == before
