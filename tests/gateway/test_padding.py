"""Declared padding: rows of several lengths in one run, and nobody told of the filling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines import EngineError, Tensor, Tensors
from gateway.execution.batch import Outputs, run
from gateway.messages import InferRequest
from gateway.padding import warm_up_inputs
from router.card import CARD_FILE, TensorSpec, VariantCard
from router.constraints import Constraints
from router.padding import CutOutput, PaddedInput, Padding
from tests.stores import write_variant

IDS = TensorSpec(name="ids", datatype="INT64", shape=(-1, -1))
MASK = TensorSpec(name="mask", datatype="INT64", shape=(-1, -1))
TOKENS = TensorSpec(name="tokens", datatype="INT64", shape=(-1, -1))
TOTAL = TensorSpec(name="total", datatype="INT64", shape=(-1,))
LENGTHS = Padding(
    inputs=(
        PaddedInput(input="ids", dimension=1, value=7),
        PaddedInput(input="mask", dimension=1),
    ),
    outputs=(CutOutput(output="tokens", dimension=1),),
    buckets=(4, 8, 16),
)


class Masked:
    """Doubles each id, and sums the rows where the mask says so."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.seen: list[Tensor] = []

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        ids, mask = inputs["ids"], inputs["mask"]
        self.shapes.append(ids.shape)
        self.seen.append(ids)
        return {"tokens": 2 * ids, "total": (ids * mask).sum(axis=1)}

    def kernels(self) -> dict[str, int]:
        return {"fp32": 1}

    def close(self) -> None: ...


def request(rows: int, length: int, first: int = 1, mask: int | None = None) -> InferRequest:
    ids = np.arange(first, first + rows * length, dtype=np.int64).reshape(rows, length)
    ones = np.ones((rows, length if mask is None else mask), np.int64)
    return InferRequest("text", {"ids": ids, "mask": ones}, rows, Constraints(), 0.0)


def answers(program: Masked, requests: list[InferRequest], largest: int = 64) -> list[Outputs]:
    ran = run(program, requests, (TOKENS, TOTAL), largest, paddings=(LENGTHS,))
    assert not [each for each in ran.outcomes if isinstance(each, Exception)], ran.outcomes
    return [each for each in ran.outcomes if not isinstance(each, Exception)]


def assert_own(given: InferRequest, answer: Outputs) -> None:
    np.testing.assert_array_equal(answer["tokens"], 2 * given.inputs["ids"])
    np.testing.assert_array_equal(answer["total"], given.inputs["ids"].sum(axis=1))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 20)), min_size=1, max_size=8),
    largest=st.integers(1, 8),
)
def test_everybody_gets_what_the_rows_alone_would_have_given(
    sizes: list[tuple[int, int]], largest: int
) -> None:
    program = Masked()
    requests = [request(rows, length, 1 + 100 * i) for i, (rows, length) in enumerate(sizes)]
    for given_, answer in zip(requests, answers(program, requests, largest), strict=True):
        assert_own(given_, answer)
    known = {4, 8, 16} | {length for _, length in sizes if length > 16}
    assert {shape[1] for shape in program.shapes} <= known


def test_one_run_for_each_bucket_and_what_is_longer_than_the_last_stays() -> None:
    program = Masked()
    requests = [request(1, length) for length in (3, 9, 4, 17, 16, 1)]
    answers(program, requests)
    assert program.shapes == [(3, 4), (2, 16), (1, 17)]


def test_rows_are_filled_up_behind_with_the_declared_value_also_where_one_runs_alone() -> None:
    program = Masked()
    answers(program, [request(1, 3)])
    assert program.seen[0].tolist() == [[1, 2, 3, 7]]


def test_what_fills_its_bucket_is_not_copied() -> None:
    program = Masked()
    given_ = request(2, 8)
    answers(program, [given_])
    assert program.seen[0] is given_.inputs["ids"]


def test_without_a_declaration_nothing_is_filled_up() -> None:
    program = Masked()
    run(program, [request(1, 3), request(1, 4)], (TOKENS, TOTAL), 8)
    assert program.shapes == [(1, 3), (1, 4)]


def test_lengths_that_disagree_are_the_engines_to_refuse_and_nobody_elses_trouble() -> None:
    odd, fine = request(1, 3, mask=2), request(1, 3)
    outcomes = run(Masked(), [odd, fine], (TOKENS, TOTAL), 8, paddings=(LENGTHS,)).outcomes
    assert isinstance(outcomes[0], ValueError)
    assert not isinstance(outcomes[1], Exception)
    assert_own(fine, outcomes[1])


def test_an_output_that_is_not_as_long_as_declared_fails() -> None:
    class Short(Masked):
        def infer(self, inputs: Tensors) -> dict[str, Tensor]:
            outputs = super().infer(inputs)
            return outputs | {"tokens": outputs["tokens"][:, 1:]}

    [outcome] = run(Short(), [request(1, 3)], (TOKENS, TOTAL), 8, paddings=(LENGTHS,)).outcomes
    assert isinstance(outcome, EngineError)
    assert "'tokens' has size 3 at dimension 1, expected 4" in str(outcome)


def card(tmp_path: Path, *paddings: Padding) -> VariantCard:
    folder = write_variant(
        tmp_path, "text", "fp32", inputs=(IDS, MASK), outputs=(TOKENS, TOTAL), padding=paddings
    )
    return VariantCard.model_validate_json((folder / CARD_FILE).read_bytes())


def test_warm_up_visits_every_bucket(tmp_path: Path) -> None:
    visited = [
        (rows, inputs["ids"].shape, inputs["mask"].shape)
        for rows, inputs in warm_up_inputs(card(tmp_path, LENGTHS), 5)
    ]
    assert all(ids == mask for _, ids, mask in visited)
    assert [ids for _, ids, _ in visited] == [
        *[(rows, 4) for rows in range(1, 6)],
        *[(rows, length) for length in (8, 16) for rows in (1, 2, 4, 5)],
    ]
    assert all(rows == ids[0] for rows, ids, _ in visited)


def test_warm_up_without_padding_visits_every_number_of_rows(tmp_path: Path) -> None:
    shapes = [inputs["ids"].shape for _, inputs in warm_up_inputs(card(tmp_path), 3)]
    assert shapes == [(1, 1), (2, 1), (3, 1)]


def ids(dimension: int = 1, value: float = 0, name: str = "ids") -> PaddedInput:
    return PaddedInput(input=name, dimension=dimension, value=value)


@pytest.mark.parametrize(
    ("padding", "told"),
    [
        ({"inputs": (ids(name="x"),), "buckets": (4,)}, "there is no input 'x'"),
        ({"inputs": (ids(2),), "buckets": (4,)}, "dimension 2 of input 'ids' is not free"),
        ({"inputs": (ids(), ids()), "buckets": (4,)}, "dimension 1 of 'ids' twice"),
        ({"inputs": (ids(value=0.5),), "buckets": (4,)}, "is INT64 and cannot hold 0.5"),
        ({"inputs": (ids(value=2.0**63),), "buckets": (4,)}, "cannot hold"),
        (
            {"inputs": (ids(),), "outputs": (CutOutput(output="y", dimension=1),), "buckets": (4,)},
            "there is no output 'y'",
        ),
        (
            {
                "inputs": (ids(),),
                "outputs": (CutOutput(output="total", dimension=1),),
                "buckets": (4,),
            },
            "dimension 1 of output 'total' is not free",
        ),
        ({"inputs": (ids(),), "buckets": (8, 4)}, "buckets must rise"),
        ({"inputs": (ids(),), "buckets": ()}, "at least 1 item"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_by_name(
    tmp_path: Path, padding: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        card(tmp_path, Padding(**padding))


def test_lengths_that_must_be_equal_are_padded_together(tmp_path: Path) -> None:
    fine = card(tmp_path, LENGTHS)
    measured = {"ids": (8,), "mask": (8,)}
    raw = fine.model_dump(mode="json") | {"measured_shapes": measured}
    VariantCard.model_validate_json(json.dumps(raw))
    raw["padding"][0]["inputs"] = raw["padding"][0]["inputs"][:1]
    with pytest.raises(ValueError, match="padded together: dimension 1 of 'ids', dimension 1 of"):
        VariantCard.model_validate_json(json.dumps(raw))
