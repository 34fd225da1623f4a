"""The laws of truncated singular value decomposition."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors.surgery.factors import (
    Spectrum,
    directions,
    energy_rank,
    in_multiples,
    projected,
    ranks_within,
    truncated,
)

SIZES = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(0, 1000))


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40)
@given(SIZES, st.integers(1, 12))
def test_the_error_is_the_tail_of_the_spectrum(size: tuple[int, int, int], rank: int) -> None:
    w = matrix(*size)
    left, right = truncated(w, rank)
    assert left.shape[1] == right.shape[0] == min(rank, *w.shape)
    error = (left @ right - w).square().sum()
    tail = torch.linalg.svdvals(w)[rank:].square().sum()
    torch.testing.assert_close(error, tail, rtol=1e-3, atol=1e-5)
    weighed = (left.norm(dim=0), right.norm(dim=1))
    torch.testing.assert_close(*weighed, rtol=1e-3, atol=1e-4)


@settings(max_examples=60)
@given(SIZES, st.integers(1, 6), st.integers(1, 40))
def test_weighted_by_inputs_no_factors_of_that_rank_are_nearer_on_them(
    size: tuple[int, int, int], rank: int, count: int
) -> None:
    """Fewer inputs than columns too: their Gram matrix is singular then."""
    w, seed = matrix(*size), size[2]
    x = matrix(w.shape[1], count, seed + 1) * torch.logspace(-2, 2, w.shape[1])[:, None]
    basis, spectrum = directions(w, x @ x.T)

    def error(left: Tensor, right: Tensor) -> float:
        return float(((left @ right - w) @ x).square().sum())

    weighted = error(*projected(w, basis, rank))
    output = float((w @ x).square().sum())
    assert weighted <= error(*truncated(w, rank)) * 1.001 + 1e-5 * output
    best = torch.linalg.svdvals((w @ x).double())[rank:].square().sum().item()
    assert weighted == pytest.approx(best, rel=1e-2, abs=1e-5 * output)
    assert spectrum[rank:].square().sum().item() == pytest.approx(best, rel=1e-2, abs=1e-4 * output)


def test_projecting_is_whitening_and_multiplying_by_the_inverse() -> None:
    """W_r = U_r S_r V_r^T L^-1, as the papers write it."""
    w, x = matrix(7, 9, 0), matrix(9, 50, 1)
    gram = (x @ x.T).double()
    factor = torch.linalg.cholesky(gram)
    u, s, vt = torch.linalg.svd(w.double() @ factor, full_matrices=False)
    theirs = (u[:, :3] * s[:3]) @ vt[:3] @ torch.linalg.inv(factor)
    left, right = projected(w, directions(w, gram)[0], 3)
    torch.testing.assert_close(left @ right, theirs.float(), rtol=1e-3, atol=1e-4)


def test_inputs_that_were_all_zero_leave_the_weights_to_decide() -> None:
    w = matrix(6, 5, 0)
    left, right = projected(w, directions(w, torch.zeros(5, 5))[0], 2)
    torch.testing.assert_close(left @ right, torch.mm(*truncated(w, 2)), rtol=1e-3, atol=1e-4)


@settings(max_examples=60)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=10), st.floats(0.01, 0.999))
def test_energy_picks_the_least_rank_with_that_energy(values: list[float], energy: float) -> None:
    spectrum = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    squared = spectrum.square()
    rank = energy_rank(spectrum, energy)
    assert squared[:rank].sum() >= (energy - 1e-9) * squared.sum()
    assert rank == 1 or squared[: rank - 1].sum() < (energy + 1e-9) * squared.sum()


def test_a_spectrum_of_zeros_has_rank_1() -> None:
    assert energy_rank(torch.zeros(4), 0.9) == 1


@pytest.mark.parametrize(("rank", "expected"), [(0.3, 8), (11.9, 8), (12.1, 16), (64, 64)])
def test_ranks_in_multiples(rank: float, expected: int) -> None:
    assert in_multiples(rank, 8) == expected


def spectra() -> dict[str, Spectrum]:
    found = {}
    for seed, (rows, columns) in enumerate([(12, 12), (16, 8), (6, 20)]):
        w = matrix(rows, columns, seed)
        found["abc"[seed]] = Spectrum(w, *directions(w))
    return found


def spent(found: dict[str, Spectrum], ranks: dict[str, int]) -> int:
    return sum(min(one.cost(ranks[name]), one.whole) for name, one in found.items())


def lost(found: dict[str, Spectrum], hurt: dict[str, float], ranks: dict[str, int]) -> float:
    return sum(
        hurt[name] * (one.tail(ranks[name]) if one.cost(ranks[name]) < one.whole else 0.0)
        for name, one in found.items()
    )


@pytest.mark.parametrize("share", [0.25, 0.4, 0.6, 0.8])
def test_ranks_keep_to_the_budget_and_are_close_to_the_best_there_are(share: float) -> None:
    found = spectra()
    hurt = {"a": 1.0, "b": 5.0, "c": 0.2}
    budget = share * sum(one.whole for one in found.values())
    ranks = ranks_within(found, hurt, budget, 1)
    assert spent(found, ranks) <= budget
    every = [
        dict(zip(found, chosen, strict=True))
        for chosen in itertools.product(*(range(1, len(one.values) + 1) for one in found.values()))
    ]
    best = min(lost(found, hurt, r) for r in every if spent(found, r) <= budget)
    worst = max(lost(found, hurt, r) for r in every if spent(found, r) <= budget)
    # Greedy misses at most what the last step, which did not fit, would have brought.
    assert lost(found, hurt, ranks) - best < 0.1 * (worst - best)


def test_the_layer_that_hurts_less_has_the_smaller_rank() -> None:
    w = matrix(16, 16, 0)
    found = {name: Spectrum(w, *directions(w)) for name in ("much", "little")}
    ranks = ranks_within(found, {"much": 1.0, "little": 0.3}, 0.5 * 2 * 256, 1)
    assert ranks["little"] < ranks["much"]


def test_a_budget_below_the_least_ranks_has_no_answer() -> None:
    assert ranks_within(spectra(), dict.fromkeys("abc", 1.0), 50, 2) == {}
