"""Masks: as many zeros as were asked for, in the least important places, and kept."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from compressors.surgery.masks import (
    Amount,
    Scope,
    apply,
    cubic,
    hold,
    patterned,
    sparsest,
    sparsity_of,
)

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 6), st.integers(1, 20)),
        st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=4,
)
SHARES = st.floats(0.01, 0.99)


def importances(shapes: list[tuple[int, ...]], levels: int = 5) -> dict[str, Tensor]:
    """With many ties: a few whole numbers."""
    generator = torch.Generator().manual_seed(0)
    return {
        str(i): torch.randint(levels, shape, generator=generator).float()
        for i, shape in enumerate(shapes)
    }


@settings(max_examples=60)
@given(SHAPES, SHARES)
def test_a_mask_has_the_zeros_asked_for_and_they_are_the_least_important(
    shapes: list[tuple[int, ...]], share: float
) -> None:
    ranked = importances(shapes)
    scopes: tuple[Scope, ...] = ("output", "layer", "global")
    for scope in scopes:
        masks = sparsest(ranked, share, scope)
        if scope == "global":
            groups = [
                (
                    torch.cat([r.flatten() for r in ranked.values()]),
                    torch.cat([masks[name].flatten() for name in ranked]),
                )
            ]
        else:
            groups = [
                pair
                for name, r in ranked.items()
                for pair in zip(
                    r.flatten(1) if scope == "output" else r.reshape(1, -1),
                    masks[name].reshape(len(r) if scope == "output" else 1, -1),
                    strict=True,
                )
            ]
        for rank, mask in groups:
            gone = int((~mask).sum())
            assert gone == round(len(rank) * share)
            if 0 < gone < len(rank):
                assert rank[~mask].max() <= rank[mask].min()


@settings(max_examples=60)
@given(SHAPES, st.integers(1, 7), st.integers(2, 8))
def test_a_pattern_keeps_exactly_n_of_every_m_inputs(
    shapes: list[tuple[int, ...]], stay: int, of: int
) -> None:
    stay = min(stay, of - 1)
    ranked = importances(shapes)
    masks = patterned(ranked, f"{stay}:{of}")
    assert set(masks) == {name for name, r in ranked.items() if r.shape[1] % of == 0}
    for name, mask in masks.items():
        groups = mask.movedim(1, -1).reshape(-1, of)
        ranks = ranked[name].movedim(1, -1).reshape(-1, of)
        assert (groups.sum(1) == stay).all()
        lowest = ranks.masked_fill(~groups, 99).min(1).values
        highest = ranks.masked_fill(groups, -1).max(1).values
        assert (highest <= lowest).all()


def test_two_to_four_along_the_channels_of_a_convolution() -> None:
    mask = patterned({"conv": torch.rand(8, 16, 3, 3)}, "2:4")["conv"]
    assert (mask.reshape(8, 4, 4, 3, 3).sum(2) == 2).all()


def test_what_is_masked_becomes_zero_even_when_it_was_not_finite() -> None:
    weights = {"a": torch.tensor([[float("nan"), -1.0], [2.0, float("inf")]])}
    mask = torch.tensor([[False, True], [True, False]])
    hold(weights, {"a": mask})()
    assert weights["a"].tolist() == [[0, -1], [2, 0]]
    assert not torch.signbit(weights["a"][0, 0])
    apply(weights, {"a": torch.zeros(2, 2, dtype=torch.bool)})
    report = sparsity_of({**weights, "b": torch.ones(3, 2)})
    assert (report.zeros, report.sizes) == ({"a": 4, "b": 0}, {"a": 4, "b": 6})
    assert report.share == 0.4 and str(report) == "40.0% of 10 weights are zero"


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_cubic_schedule_rises_to_its_end_and_slows_down(steps: int) -> None:
    shares = [cubic(0.8, step, steps) for step in range(steps + 1)]
    assert shares[0] == 0 and shares[-1] == 0.8
    rises = [after - before for before, after in itertools.pairwise(shares)]
    assert all(rise > 0 for rise in rises) and rises == sorted(rises, reverse=True)
    assert cubic(0.8, 1, 2) == pytest.approx(0.7)


def test_a_pattern_brings_its_own_share() -> None:
    amount = Amount.model_validate({"pattern": "1:4"})
    assert amount.sparsity == 0.75
    assert Amount.model_validate(amount.model_dump()) == amount
    for wrong, told in (
        ({"pattern": "2:4", "sparsity": 0.9}, "sparsity: a pattern '2:4' has 0.5"),
        ({"pattern": "4:4"}, "expected n below m"),
        ({"pattern": "0:4"}, "pattern"),
        ({"pattern": "half"}, "pattern"),
        ({"pattern": 2}, "pattern"),
    ):
        with pytest.raises(ValidationError, match=told):
            Amount.model_validate(wrong)
