"""Multi-head attention that can have fewer heads than its width has room for.

`nn.MultiheadAttention` derives the size of a head from its width, so a head cannot be taken out of
it. This one computes the same with a linear layer each for queries, keys, values and outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """What `nn.MultiheadAttention` computes, `num_heads` times `head_size` wide inside.

    Masks are those of `nn.MultiheadAttention`, except that one mask per head is refused.
    """

    in_proj_bias = None
    """Nothing: so `nn.TransformerEncoderLayer` calls it, and not its own kernel on its weights."""
    _qkv_same_embed_dim = True

    def __init__(
        self,
        widths: tuple[int, int, int],
        num_heads: int,
        head_size: int,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        batch_first: bool = True,
    ) -> None:
        """Args: widths: of queries, keys and values."""
        super().__init__()
        self.embed_dim, self.num_heads, self.head_size = widths[0], num_heads, head_size
        self.dropout, self.batch_first = dropout, batch_first
        self.query, self.key, self.value = (
            nn.Linear(width, num_heads * head_size, bias=bias) for width in widths
        )
        self.out_proj = nn.Linear(num_heads * head_size, widths[0], bias=bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # noqa: ARG002 - a hint: the mask says it too
    ) -> tuple[Tensor, Tensor | None]:
        """The attended values, and the weights (n, length, keys) where they are asked for.

        Raises:
            ValueError: a mask for every head, whose heads this one no longer has.
        """
        if not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        mask = _merged(attn_mask, key_padding_mask, query.dtype)
        q, k, v = (
            layer(tensor).unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)
            for layer, tensor in ((self.query, query), (self.key, key), (self.value, value))
        )
        weights = None
        if need_weights:
            scores = q @ k.transpose(2, 3) * self.head_size**-0.5
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            attended = functional.dropout(weights, self.dropout, self.training) @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            attended = functional.scaled_dot_product_attention(
                q, k, v, mask, self.dropout if self.training else 0.0
            )
        out = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out if self.batch_first else out.transpose(0, 1), weights


def from_torch(layer: nn.MultiheadAttention) -> Attention | None:
    """The same attention as a module that can lose heads; None where it has keys of its own."""
    if layer.bias_k is not None or layer.add_zero_attn:
        return None
    bias = layer.in_proj_bias is not None
    same = Attention(
        (layer.embed_dim, layer.kdim, layer.vdim),
        layer.num_heads,
        layer.head_dim,
        bias=bias,
        dropout=layer.dropout,
        batch_first=layer.batch_first,
    )
    projections = (same.query, same.key, same.value)
    if layer._qkv_same_embed_dim:
        weights = layer.in_proj_weight.chunk(3)
    else:
        weights = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
    with torch.no_grad():
        for projection, weight in zip(projections, weights, strict=True):
            projection.weight.copy_(weight)
        same.out_proj.weight.copy_(layer.out_proj.weight)
        if bias:
            for projection, values in zip(projections, layer.in_proj_bias.chunk(3), strict=True):
                projection.bias.copy_(values)
            same.out_proj.bias.copy_(layer.out_proj.bias)
    return same.train(layer.training)


def _merged(mask: Tensor | None, padding: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Both masks as one that is added to the scores (n, heads, length, keys)."""
    if mask is not None:
        if mask.ndim != 2:
            raise ValueError(f"attn_mask: expected (length, keys), got shape {tuple(mask.shape)}")
        mask = _additive(mask, dtype)[None, None]
    if padding is not None:
        padding = _additive(padding, dtype)[:, None, None]
    if mask is None or padding is None:
        return padding if mask is None else mask
    return mask + padding


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
