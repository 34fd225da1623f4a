"""Matrices as products of two thin ones, and how thin.

The nearest matrix of rank r to W, in the sum of squares, is W projected on its r leading left
singular vectors, U_r U_r^T W; its error is the sum of the squared singular values that are dropped
(Eckart & Young 1936). The nearest in what it gives on inputs X, the least ||(W - W_r) X||, is W
projected on the r leading left singular vectors of W L, where L L^T = X X^T is the Cholesky factor
of the inputs' Gram matrix (activation-weighted SVD: Yuan et al. 2023, arXiv 2312.05821; with this
whitening: Wang et al. 2024, arXiv 2403.07378). They multiply by L^-1 to get back to weights;
projecting gives the same matrix and divides by nothing, so rarely seen inputs do no harm.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of the Gram matrix's mean diagonal: directions that no sample has are still told apart by the
# weights, and Cholesky's factor exists for fewer samples than inputs.
_RIDGE = 1e-7


def directions(matrix: Tensor, gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Left singular vectors (m, k) and singular values (k,), float64, k = min(m, n), of `matrix`
    (m, n), or of what it does to inputs with the Gram matrix `gram` (n, n), X X^T."""
    seen = matrix.detach().double()
    if gram is not None:
        gram = gram.double()
        ridge = _RIDGE * gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
        seen = seen @ torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    u, s, _ = torch.linalg.svd(seen, full_matrices=False)
    return u, s


def projected(matrix: Tensor, basis: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(m, rank) and (rank, n), of `matrix`'s type, whose product is `matrix` (m, n) projected on
    the first `rank` columns of `basis` (m, k). Each has the root of what a direction weighs, so
    that both train at one learning rate."""
    left = basis[:, :rank]
    right = left.T @ matrix.detach().to(left.dtype)
    root = right.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
    return (left * root).to(matrix.dtype), (right / root[:, None]).to(matrix.dtype)


def truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(m, rank) and (rank, n), whose product is the nearest of that rank to `matrix` (m, n)."""
    return projected(matrix, directions(matrix)[0], rank)


def energy_rank(spectrum: Tensor, energy: float) -> int:
    """The least rank, at least 1, that keeps the share `energy` of the squared `spectrum`."""
    kept = spectrum.double().square().cumsum(0)
    return min(int((kept < energy * kept[-1]).sum()) + 1, len(spectrum))


def in_multiples(rank: float, of: int) -> int:
    """The multiple of `of` nearest to `rank`, at least one of them."""
    return max(round(rank / of), 1) * of
