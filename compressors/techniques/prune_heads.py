"""prune-heads: attention heads are removed, and the network is fine-tuned.

Most heads can go: Michel, Levy & Neubig 2019, "Are Sixteen Heads Really Better than One?" (arXiv
1905.10650), who rank them by the gradient of a gate on each head,

    I_h = E_x |O_h . dL/dO_h|,    O_h the head's output,

which is criterion "taylor", the sum over the output projection's columns of w dL/dw. The rows of
the query, key and value projections and the columns of the output projection go.
`nn.MultiheadAttention` has no room for fewer heads and is replaced by
`compressors.surgery.attention`'s, which computes the same. Of Hugging Face's models those are known
that name their layers as BERT or DistilBERT do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.surgery import narrow, structure
from compressors.surgery.attention import Attention, from_torch
from compressors.surgery.structure import Pruning
from compressors.surgery.units import Criterion, Slot, Units
from compressors.technique import Context, Network, Technique


class _Config(Pruning):
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    criterion: Criterion = Field("taylor", description="by what the heads that stay are chosen")
    round_to: int = Field(1, ge=1, le=64, description="heads that stay are a multiple of this")
    least: float = Field(
        0.1, gt=0, le=1, description="share of its heads that a layer keeps; one at least"
    )


class _PruneHeads(Technique):
    Config = _Config
    needs = frozenset({"training"})
    summary = "Removes the attention heads that matter least, then fine-tunes."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with fewer attention heads, fine-tuned.

        Raises:
            NotApplicable: it has no attention of a kind that is known, or one head in each.
            NotFinite: the loss became NaN.
        """
        replace_attentions(network.module)
        structure.prune("prune-heads", "heads", network.module, context, config, heads)
        return replace(network, module=network.module)


TECHNIQUE = _PruneHeads()


@dataclass(frozen=True)
class _Heads:
    """An attention's layers by name, and the attributes of its module that say how many heads it
    has and how wide they are together."""

    projections: tuple[str, ...]
    out: str
    owner: nn.Module
    count: str
    width: str | None
    size: int


def replace_attentions(module: nn.Module) -> None:
    """Every `nn.MultiheadAttention` by one that can lose heads, in place."""
    for name, layer in list(module.named_modules()):
        if name and type(layer) is nn.MultiheadAttention:
            same = from_torch(layer)
            if same is not None:
                parent, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(parent), attribute, same)


def heads(module: nn.Module, _inputs: tuple[Tensor, ...]) -> list[Units]:
    """The heads of `module`, by attention."""
    return [_units(module, name, found) for name, found in _attentions(module)]


def _attentions(module: nn.Module) -> Iterator[tuple[str, _Heads]]:
    layers = dict(module.named_modules())
    for name, layer in layers.items():
        prefix = f"{name}." if name else ""
        if isinstance(layer, Attention):
            parts = tuple(prefix + p for p in ("query", "key", "value"))
            out, count, width, size = prefix + "out_proj", "num_heads", None, layer.head_size
        elif all(hasattr(layer, a) for a in ("num_attention_heads", "all_head_size", "query")):
            parts = tuple(prefix + p for p in ("query", "key", "value"))
            parent = name.rpartition(".")[0]
            out = f"{parent}.output.dense" if parent else "output.dense"
            count, width, size = "num_attention_heads", "all_head_size", layer.attention_head_size
        elif all(hasattr(layer, a) for a in ("n_heads", "q_lin", "out_lin")):
            parts = tuple(prefix + p for p in ("q_lin", "k_lin", "v_lin"))
            out, count, width = prefix + "out_lin", "n_heads", "dim"
            size = layer.dim // layer.n_heads
        else:
            continue
        total = getattr(layer, count) * size
        made = [layers.get(part) for part in parts]
        read = layers.get(out)
        if all(type(m) is nn.Linear and m.out_features == total for m in made) and (
            type(read) is nn.Linear and read.in_features == total
        ):
            yield name, _Heads(parts, out, layer, count, width, size)


def _units(module: nn.Module, name: str, found: _Heads) -> Units:
    count = getattr(found.owner, found.count)
    places = torch.arange(count).repeat_interleave(found.size)
    slots = [Slot(f"{part}.weight", 0, places, reads=False) for part in found.projections]
    slots.append(Slot(f"{found.out}.weight", 1, places, reads=True))

    made = [cast(nn.Linear, module.get_submodule(part)) for part in found.projections]
    read = cast(nn.Linear, module.get_submodule(found.out))

    def remove(gone: list[int]) -> None:
        features = torch.isin(places, torch.tensor(gone)).nonzero().flatten().tolist()
        for layer in made:
            narrow.linear(layer, features, outputs=True)
        narrow.linear(read, features, outputs=False)
        setattr(found.owner, found.count, count - len(gone))
        if found.width is not None:
            setattr(found.owner, found.width, (count - len(gone)) * found.size)

    return Units(name, count, tuple(slots), remove)
