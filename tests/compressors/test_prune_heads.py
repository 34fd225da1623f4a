"""Attention heads are removed whole, and what stays computes as if they were silent."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compressors import technique
from compressors.errors import NotApplicable
from compressors.macs import macs
from compressors.surgery.attention import from_torch
from compressors.surgery.observe import draw
from compressors.surgery.units import importance
from compressors.technique import Network
from compressors.techniques.prune_heads import heads, replace_attentions
from compressors.verify import weights_digest
from tests.compressors.few import context_of
from tests.compressors.pruned import (
    WORDS,
    Bert,
    TorchEncoder,
    Words,
    removed_and_zeroed,
    same,
)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("widths", [(None, None), (6, 10)])
@pytest.mark.parametrize("mask", ["none", "causal", "additive", "padding", "both"])
@torch.no_grad()
def test_the_attention_that_can_lose_heads_computes_the_same(
    batch_first: bool, bias: bool, widths: tuple[int | None, int | None], mask: str
) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(
        16, 4, bias=bias, kdim=widths[0], vdim=widths[1], batch_first=batch_first
    ).eval()
    same_layer = from_torch(layer)
    assert same_layer is not None
    q, k, v = torch.randn(3, 5, 16), torch.randn(3, 5, widths[0] or 16), torch.randn(3, 5, 16)
    v = v[..., : widths[1] or 16]
    if not batch_first:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    padding = torch.arange(5) >= torch.tensor([[5], [3], [1]])
    given: dict[str, Tensor] = {}
    if mask == "causal":
        given["attn_mask"] = torch.ones(5, 5, dtype=torch.bool).triu(1)
    if mask in ("additive", "both"):
        given["attn_mask"] = torch.randn(5, 5)
    if mask == "padding":
        given["key_padding_mask"] = padding
    if mask == "both":
        given["key_padding_mask"] = torch.zeros(3, 5).masked_fill(padding, float("-inf"))
    for need_weights in (True, False):
        for average in (True, False):
            options = {"need_weights": need_weights, "average_attn_weights": average}
            expected, weights = layer(q, k, v, **given, **options)
            got, own = same_layer(q, k, v, **given, **options)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
            assert (weights is None) == (own is None)
            if weights is not None:
                torch.testing.assert_close(own, weights, rtol=1e-4, atol=1e-5)


def test_a_mask_for_every_head_and_keys_of_its_own_are_refused() -> None:
    layer = from_torch(nn.MultiheadAttention(16, 4, batch_first=True))
    assert layer is not None
    x = torch.randn(2, 5, 16)
    with pytest.raises(ValueError, match=r"attn_mask: expected \(length, keys\)"):
        layer(x, x, x, attn_mask=torch.zeros(8, 5, 5))
    assert from_torch(nn.MultiheadAttention(16, 4, add_bias_kv=True)) is None


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    config = DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=50, max_position_embeddings=16
    )

    class Distil(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert, self.head = DistilBertModel(config), nn.Linear(32, 10)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
            return self.head(hidden[:, 0])  # type: ignore[no-any-return]

    return Distil()


@pytest.mark.parametrize("make", [TorchEncoder, Bert, distilbert])
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_removing_heads_is_the_same_as_zeroing_them(make: object, share: float) -> None:
    given = make().eval()  # type: ignore[operator]
    whole = copy.deepcopy(given)
    replace_attentions(whole)
    same(whole, given, WORDS)
    cut, zeroed = removed_and_zeroed(whole, WORDS, heads, share)
    same(cut, zeroed, WORDS)
    assert macs(cut, WORDS) < macs(whole, WORDS)
    assert [units.count for units in heads(cut, WORDS)] == [4 - int(4 * share)] * 2
    with pytest.raises(AssertionError):
        same(cut, given, WORDS)


def test_taylor_is_the_gradient_of_a_gate_on_each_head() -> None:
    """Michel et al. 2019: I_h = E |dL / d gate_h|, with the gate on the head's output."""
    network = Bert().eval().requires_grad_(True)
    task = Words(network)
    context = context_of(task)
    scores = importance(heads(network, WORDS), network, context, "taylor", 8)
    name = "bert.encoder.layer.1.attention.self"
    gate = torch.ones(4, requires_grad=True)
    out = network.get_submodule("bert.encoder.layer.1.attention.output.dense")
    out.register_forward_pre_hook(lambda _layer, inputs: (inputs[0] * gate.repeat_interleave(8),))
    drawn = draw(task, 8, context.seed)
    loss = task.loss(
        (network(*(torch.from_numpy(a) for a in drawn.inputs.values())),),
        torch.from_numpy(drawn.targets),
    )
    (gradient,) = torch.autograd.grad(loss, gate)
    torch.testing.assert_close(scores[name], 8 * gradient.abs(), rtol=1e-3, atol=1e-6)


def applied(network: nn.Module, **settings: object) -> nn.Module:
    found = technique.get("prune-heads")
    config = found.Config.model_validate({"epochs": 0, "samples": 32} | settings)
    task = Words(network)
    return found.apply(Network(task.network()), context_of(task), config).module


def counts(network: nn.Module) -> list[int]:
    return [units.count for units in heads(network, WORDS)]


def test_each_criterion_makes_another_choice() -> None:
    chosen = {
        weights_digest(applied(Bert(64, 16), criterion=criterion))
        for criterion in ("magnitude", "wanda", "taylor", "obd", "random")
    }
    assert len(chosen) == 5


@pytest.mark.parametrize("make", [TorchEncoder, Bert])
def test_one_head_stays_at_least_and_the_rest_trains(make: type[nn.Module]) -> None:
    network = applied(make(), ratio=0.99, epochs=1)
    assert counts(network) == [1, 1]
    assert network(*WORDS).shape == (4, 10)
    uneven = applied(make(64, 16), scope="global", ratio=0.6, least=0.01)
    assert sum(counts(uneven)) <= 14 and min(counts(uneven)) >= 1
    assert counts(applied(make(), rounds=2)) == [2, 2]


def test_networks_without_heads_to_spare_are_refused() -> None:
    with pytest.raises(NotApplicable, match="prune-heads: no heads can be removed"):
        applied(Bert(32, 1))
    with pytest.raises(NotApplicable, match="prune-heads: no heads can be removed"):
        applied(Plain())


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 16), nn.Linear(16, 10)

    def forward(self, ids: Tensor, _mask: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1))  # type: ignore[no-any-return]
