"""Matrices as products of two thin ones, and how thin.

The nearest matrix of rank r to W, in the sum of squares, is W projected on its r leading left
singular vectors, U_r U_r^T W; its error is the sum of the squared singular values that are dropped
(Eckart & Young 1936). The nearest in what it gives on inputs X, the least ||(W - W_r) X||, is W
projected on the r leading left singular vectors of W L, with L L^T = X X^T, the inputs' Gram matrix
(activation-weighted SVD: Yuan et al. 2023, arXiv 2312.05821; whitened so: Wang et al. 2024, arXiv
2403.07378). There L is Cholesky's factor, and L^-1 leads back to weights; projecting gives the same
matrix without dividing, and L from eigenvalues exists for fewer samples than inputs too.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Of the Gram matrix's largest eigenvalue, what rounding leaves of those that are 0. Directions that
# no sample has are still told apart by the weights.
_FLOOR = 1e-7


def directions(matrix: Tensor, gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Left singular vectors (m, k) and singular values (k,), float64, k = min(m, n), of `matrix`
    (m, n), or of what it does to inputs with the Gram matrix `gram` (n, n), X X^T."""
    seen = matrix.detach().double()
    if gram is not None:
        values, vectors = torch.linalg.eigh(gram.double())
        floor = (_FLOOR * values[-1]).clamp_min(torch.finfo(values.dtype).tiny)
        seen = seen @ (vectors * values.clamp_min(floor).sqrt())
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


@dataclass(frozen=True)
class Spectrum:
    """What `directions` says of the weights (out, in) of a linear layer, gram or no gram.

    Attributes:
        weight: (out, in).
        basis: (out, k), the directions that its outputs take.
        values: (k,), how much of each, descending.
    """

    weight: Tensor
    basis: Tensor
    values: Tensor

    @property
    def whole(self) -> int:
        """Multiplications of the layer for each row of inputs."""
        return self.weight.numel()

    def cost(self, rank: int) -> int:
        """Multiplications of the two layers for each row of inputs."""
        return rank * sum(self.weight.shape)

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        return projected(self.weight, self.basis, rank)

    def tail(self, rank: int) -> float:
        """The squared error of that rank, in the weights or in what they do to the samples."""
        return float(self.values[rank:].square().sum())


def ranks_within(
    found: Mapping[str, Spectrum], hurt: Mapping[str, float], budget: float, step: int
) -> dict[str, int]:
    """By layer, the ranks (multiples of `step`) with the least sum of hurt * tail(rank) whose
    multiplications are at most `budget`. Tails are convex, so the next singular values go to the
    layer where they lower that sum most for what they cost. A rank at which two layers cost as much
    as one means the whole layer, at its own cost. Empty where `step` everywhere is too much."""
    ranks = dict.fromkeys(found, step)
    spent = sum(min(layer.cost(step), layer.whole) for layer in found.values())
    if spent > budget:
        return {}

    def offer(name: str) -> tuple[float, str, int]:
        """(minus what each multiplication more brings, layer, rank)"""
        layer, rank = found[name], ranks[name] + step
        paid = min(layer.cost(rank), layer.whole) - layer.cost(ranks[name])
        left = layer.tail(rank) if layer.cost(rank) < layer.whole else 0.0
        return -hurt[name] * (layer.tail(ranks[name]) - left) / paid, name, rank

    waiting = [offer(name) for name, layer in found.items() if layer.cost(step) < layer.whole]
    heapq.heapify(waiting)
    while waiting:
        _, name, rank = heapq.heappop(waiting)
        layer = found[name]
        paid = min(layer.cost(rank), layer.whole) - layer.cost(ranks[name])
        # What no longer fits ends this layer alone: a cheaper one may still fit.
        if spent + paid <= budget:
            spent, ranks[name] = spent + paid, rank
            if layer.cost(rank) < layer.whole:
                heapq.heappush(waiting, offer(name))
    return ranks
