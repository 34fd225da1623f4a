"""Weights of convolutions (out, in, k, l) as products of smaller tensors, by tensorly.

Kossaifi et al. 2019, "TensorLy: Tensor Learning in Python", JMLR 20(26).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import tensorly
import torch
from tensorly.decomposition import parafac, partial_tucker, tensor_train
from torch import Tensor

from compressors.surgery.factors import energy_rank

# Of the squared weights: keeps the components of a CP from growing against one another without
# bound, as they do where a tensor has no nearest one of that rank (de Silva & Lim 2008, SIAM J.
# Matrix Anal. 30:1084). On the layers of a trained network it cost nothing.
_CP_RIDGE = 1e-4


def tucker2(weight: Tensor, ranks: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The core (r_out, r_in, k, l) and orthonormal factors (out, r_out) and (in, r_in), by
    higher-order orthogonal iteration. The squared error is at most the sum of both unfoldings'
    tails (De Lathauwer, De Moor & Vandewalle 2000, SIAM J. Matrix Anal. 21:1253), and 0 at full
    ranks."""
    with _torch_tensors():
        (core, factors), _errors = partial_tucker(_double(weight), rank=list(ranks), modes=[0, 1])
    return core.to(weight.dtype), factors[0].to(weight.dtype), factors[1].to(weight.dtype)


def canonical(weight: Tensor, rank: int, iterations: int, seed: int) -> list[Tensor]:
    """Factors (out, rank), (in, rank), (k, rank), (l, rank) whose columns' outer products add up to
    about `weight`, by alternating least squares. Of each component all four weigh the same, so that
    they train at one learning rate. `rank` is at most the weight's numbers for each place of its
    longest side, as any that saves something is."""
    tensor = _double(weight)
    scale = tensor.norm().clamp_min(torch.finfo(torch.float32).tiny)
    with _torch_tensors():
        found = parafac(
            tensor / scale,
            rank=rank,
            n_iter_max=iterations,
            tol=1e-6,
            l2_reg=_CP_RIDGE,
            random_state=seed,
        )
    norms = [factor.norm(dim=0) for factor in found.factors]
    size = scale * torch.stack(norms).prod(dim=0)
    each = size ** (1 / len(norms))
    columns = [
        factor * (each / norm.clamp_min(torch.finfo(torch.float64).tiny))
        for factor, norm in zip(found.factors, norms, strict=True)
    ]
    return [factor.to(weight.dtype) for factor in columns]


def train_of(weight: Tensor, ranks: tuple[int, int, int]) -> list[Tensor]:
    """Cores (1, in, r1), (r1, k, r2), (r2, l, r3), (r3, out, 1) of a tensor train, by successive
    SVDs (Oseledets 2011, SIAM J. Sci. Comput. 33:2295). The squared error is at most the sum of the
    three unfoldings' tails, and 0 at full ranks."""
    with _torch_tensors():
        found = tensor_train(_double(weight).permute(1, 2, 3, 0), rank=[1, *ranks, 1])
    return [core.to(weight.dtype) for core in found.factors]


def modes(weight: Tensor) -> list[Tensor]:
    """The unfoldings that a Tucker-2 truncates: (out, ...) and (in, ...)."""
    return [weight.flatten(1), weight.transpose(0, 1).flatten(1)]


def cuts(weight: Tensor) -> list[Tensor]:
    """The unfoldings that a tensor train truncates: (in, ...), (in k, ...), (in k l, out)."""
    ordered = weight.permute(1, 2, 3, 0)
    return [
        ordered.reshape(len(ordered), -1),
        ordered.flatten(0, 1).flatten(1),
        ordered.flatten(0, 2),
    ]


def ranks_of(
    unfoldings: list[Tensor], *, ratio: float | None, energy: float | None, round_to: int
) -> list[int]:
    """A rank for each unfolding: the share `ratio` of its full one, or the least ones by which the
    whole keeps the share `energy` of the sum of squares; up to a multiple, at most the full one."""
    found = []
    for matrix in unfoldings:
        full = min(matrix.shape)
        if ratio is not None:
            rank = ratio * full
        else:
            assert energy is not None
            lost = (1 - energy) / len(unfoldings)
            rank = energy_rank(torch.linalg.svdvals(matrix.detach().double()), 1 - lost)
        found.append(min(-int(-rank // round_to) * round_to, full))
    return found


def _double(weight: Tensor) -> Tensor:
    return weight.detach().double()


@contextmanager
def _torch_tensors() -> Iterator[None]:
    with tensorly.backend_context("pytorch", local_threadsafe=True), warnings.catch_warnings():
        # Of more components than a side has, which is what convolutions need.
        warnings.simplefilter("ignore")
        yield
