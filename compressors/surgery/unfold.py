"""A convolution as a linear layer: what its kernel sees at every position, as rows of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor


def unfold(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    """(n, channels, ...) already padded, to (n x positions, groups, columns), for kernels of any
    number of dimensions; columns in the order of `weight.flatten(1)`, so that
    `unfold(x) @ weight.flatten(1).T` is the convolution where there is one group."""
    dimensions = len(kernel)
    for axis in range(dimensions):
        span = (kernel[axis] - 1) * dilation[axis] + 1
        x = x.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    # Samples, channels, positions, places in the kernel: the channels go beside the places.
    positions = range(2, 2 + dimensions)
    x = x.permute(0, *positions, 1, *range(2 + dimensions, 2 + 2 * dimensions))
    return x.reshape(prod(x.shape[: 1 + dimensions]), groups, -1)


def each(value: Any, kernel: Sequence[int]) -> tuple[int, ...]:
    """One number for every dimension of the kernel, where a convolution takes one for all."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * len(kernel) if len(numbers) == 1 else numbers


def padding(value: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """A convolution's `padding` as `torch.nn.functional.pad` takes it: the last dimension first,
    before and after."""
    if value == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        sides = [(t // 2, t - t // 2) for t in reversed(total)]
    else:
        sides = [(p, p) for p in reversed(each(0 if value == "valid" else value, kernel))]
    return [side for pair in sides for side in pair]
