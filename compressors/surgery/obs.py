"""Optimal Brain Surgeon on one layer: remove weights, and let the others make up for it.

For the outputs X w of a layer with the Hessian H = X^T X, removing weight j and changing those
after it as best can be costs w_j^2 / (2 u_jj^2) and changes them by -(w_j / u_jj) u_j, u the upper
Cholesky factor of H^-1 (Hassibi & Stork 1992; the order that makes one factor serve all rows:
Frantar & Alistarh 2023, "SparseGPT", arXiv 2301.00774).
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.surgery.masks import most


def prune_rows(
    weight: Tensor,
    gram: Tensor,
    *,
    sparsity: float = 0.5,
    pattern: tuple[int, int] | None = None,
    damping: float = 0.01,
    block: int = 128,
) -> Tensor:
    """`weight` (outputs, columns) with weights removed and the columns after them adjusted; with
    those of least magnitude removed and no more, where that is nearer to what it computed.

    Args:
        gram: (columns, columns), X^T X at any scale.
        sparsity: of each block of columns, over all outputs together.
        pattern: (n, m) keeps n of every m columns of an output instead; m divides the columns.
        damping: added to the Gram's diagonal, as a share of its mean.
        block: columns whose weights are chosen together.
    """
    w = weight.detach().double().clone()
    columns = w.shape[1]
    if pattern is not None:
        # Whole groups of m: a block's end must not cut one.
        block = max(block // pattern[1], 1) * pattern[1]
    mask = torch.ones_like(w, dtype=torch.bool)
    u = _factor(gram, damping)
    # What a column that is always zero brings to the output is nothing, whatever the damping says.
    worth = (gram.diagonal() > 0) / u.diagonal().square()
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        if pattern is None:
            cost = w[:, start:stop].square() * worth[start:stop]
            mask[:, start:stop] = most(cost.reshape(1, -1), sparsity).reshape(cost.shape)
        for j in range(start, stop):
            if pattern is not None and j % pattern[1] == 0:
                stay, of = pattern
                cost = w[:, j : j + of].square() * worth[j : j + of]
                mask[:, j : j + of] = most(cost, 1 - stay / of)
            error = w[:, j].masked_fill(mask[:, j], 0) / u[j, j]
            w[:, j + 1 :] -= error[:, None] * u[j, j + 1 :]
            w[:, j].masked_fill_(~mask[:, j], 0)
    # Going by one column at a time can lose to no amends at all, where inputs nearly repeat.
    plain = _by_magnitude(weight.detach(), sparsity, pattern)
    found = w.to(weight.dtype)
    errors = [reconstruction_error(weight, each, gram) for each in (found, plain)]
    return found if errors[0] <= errors[1] else plain


def reconstruction_error(before: Tensor, after: Tensor, gram: Tensor) -> float:
    """The sum over outputs of the mean square by which they differ: tr(D G D^T), D the change."""
    change = (after - before).detach().double()
    return float(((change @ gram.double()) * change).sum())


def _by_magnitude(weight: Tensor, sparsity: float, pattern: tuple[int, int] | None) -> Tensor:
    if pattern is None:
        rows, share = weight.abs().reshape(1, -1), sparsity
    else:
        rows, share = weight.abs().reshape(-1, pattern[1]), 1 - pattern[0] / pattern[1]
    return weight.masked_fill(~most(rows, share).reshape(weight.shape), 0)


def _factor(gram: Tensor, damping: float) -> Tensor:
    """The upper u of H^-1 = u^T u."""
    hessian = gram.double().clone()
    diagonal = hessian.diagonal()
    mean = diagonal.mean().clamp_min(torch.finfo(torch.float32).tiny)
    diagonal.add_(damping * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
