"""What the tests of structured pruning share: laws of a removal, and networks with every part."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from compressors.surgery.structure import Find, remove
from compressors.surgery.units import Units
from compressors.task import Samples, Split
from tests.tiny_task import Tiny


def zero(module: nn.Module, units: Sequence[Units], gone: Mapping[str, list[int]]) -> None:
    """Make every unit of `gone` zero in place: the weights that make it, their biases, norms."""
    for group in units:
        for slot in group.slots:
            if slot.reads or group.name not in gone:
                continue
            layer = module.get_submodule(slot.weight.rpartition(".")[0])
            places = torch.isin(slot.units, torch.tensor(gone[group.name]))
            with torch.no_grad():
                layer.weight.transpose(0, slot.dimension)[places] = 0
                if layer.bias is not None:
                    layer.bias[places] = 0
                if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                    layer.running_mean[places] = 0


def removed_and_zeroed(
    network: nn.Module, inputs: tuple[Tensor, ...], find: Find, share: float, seed: int = 0
) -> tuple[nn.Module, nn.Module]:
    """Two copies: one with `share` of the units removed, drawn by chance, one with them zero."""
    network.eval().requires_grad_(True)
    cut, zeroed = copy.deepcopy(network), copy.deepcopy(network)
    units = find(cut, inputs)
    draw = np.random.default_rng(seed)
    gone = {
        g.name: sorted(draw.choice(g.count, max(1, int(g.count * share)), replace=False).tolist())
        for g in units
        if g.count > 1
    }
    assert gone
    remove(units, gone)
    zero(zeroed, find(zeroed, inputs), gone)
    return cut, zeroed


def same(a: nn.Module, b: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        torch.testing.assert_close(a(*inputs), b(*inputs), rtol=1e-4, atol=1e-5)


class Words(Tiny):
    """A task of token ids with a mask; its network is given."""

    name = "words"
    labels = tuple("0123456789")

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def network(self) -> nn.Module:
        return copy.deepcopy(self._network).eval()

    def samples(self, split: Split) -> Samples:
        count = {"train": 64, "validation": 24, "test": 32}[split]
        draw = np.random.default_rng(len(split))
        ids = draw.integers(0, 50, (count, 12))
        mask = (np.arange(12) < draw.integers(3, 13, (count, 1))).astype(np.int64)
        return Samples({"ids": ids, "mask": mask}, (ids * mask).sum(1) % 10)

    def student(self) -> None:  # type: ignore[override]
        return None


class TorchEncoder(nn.Module):
    """Embeddings, `nn.TransformerEncoder`, the mean over tokens, a head."""

    def __init__(self, width: int = 32, heads: int = 4, inner: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, inner, dropout=0.0, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.encoder(self.embedding(ids), src_key_padding_mask=mask == 0)
        weight = mask[..., None].float()
        return self.head((hidden * weight).sum(1) / weight.sum(1))  # type: ignore[no-any-return]


class Bert(nn.Module):
    """A small Hugging Face BERT, the mean over tokens, a head."""

    def __init__(self, width: int = 32, heads: int = 4, inner: int = 64) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=heads,
            intermediate_size=inner,
            vocab_size=50,
            max_position_embeddings=16,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(width, 10)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].float()
        return self.head((hidden * weight).sum(1) / weight.sum(1))  # type: ignore[no-any-return]


WORDS = tuple(
    torch.from_numpy(a[:4]) for a in Words(nn.Identity()).samples("validation").inputs.values()
)
