"""Requests in one batch, with rows of one shape or of several."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from gateway import engines
from gateway.engines import EngineError, Program, Tensor, Tensors
from gateway.execution.batch import Outputs, Ran, run
from gateway.messages import InferRequest
from router.card import CARD_FILE, TensorSpec, VariantCard
from router.constraints import Constraints
from tests.stores import LOGITS, write_variant

IDS = TensorSpec(name="ids", datatype="INT64", shape=(-1, -1))
SUMS = TensorSpec(name="sums", datatype="INT64", shape=(-1, -1))


class Sums:
    """Running sums of each row: as many of them as the row is long."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        self.shapes.append(inputs["ids"].shape)
        return {"sums": np.cumsum(inputs["ids"], axis=1)}

    def kernels(self) -> dict[str, int]:
        return {"fp32": 1}

    def close(self) -> None: ...


def request(rows: int, length: int, first: int) -> InferRequest:
    ids = np.arange(rows * length, dtype=np.int64).reshape(rows, length) + first
    return InferRequest("text", {"ids": ids}, rows, Constraints(), 0.0)


def answers(ran: Ran) -> list[Outputs]:
    """The outputs of each request, of which none failed."""
    assert not [each for each in ran.outcomes if isinstance(each, Exception)]
    return [each for each in ran.outcomes if not isinstance(each, Exception)]


@pytest.fixture
def echo(tmp_path: Path) -> Program:
    folder = write_variant(tmp_path, "text", "fp32", inputs=(IDS,), mirror=True)
    card = VariantCard.model_validate_json((folder / CARD_FILE).read_bytes())
    return engines.get("echo").load(folder, card, threads=1, trusted=False)


def test_two_lengths_in_one_batch(echo: Program) -> None:
    requests = [request(2, 10, 100), request(1, 20, 200), request(3, 10, 300)]
    outputs = answers(run(echo, requests, (LOGITS,), largest=8))
    assert [each["logits"][:, 0].tolist() for each in outputs] == [
        each.inputs["ids"][:, 0].tolist() for each in requests
    ]


def test_one_call_for_each_shape_in_the_order_of_the_first() -> None:
    sums = Sums()
    requests = [request(1, 20, 0), request(2, 10, 5), request(3, 20, 9), request(1, 10, 1)]
    run(sums, requests, (SUMS,), largest=8)
    assert sums.shapes == [(4, 20), (3, 10)]


def test_outputs_may_differ_in_shape_as_well() -> None:
    requests = [request(2, 3, 1), request(1, 5, 2), request(1, 3, 7)]
    outputs = answers(run(Sums(), requests, (SUMS,), largest=2))
    for each, given in zip(outputs, requests, strict=True):
        np.testing.assert_array_equal(each["sums"], np.cumsum(given.inputs["ids"], axis=1))


def test_a_large_request_of_its_own_shape_runs_in_pieces() -> None:
    sums = Sums()
    requests = [request(5, 4, 0), request(1, 3, 0)]
    outputs = answers(run(sums, requests, (SUMS,), largest=2))
    assert sums.shapes == [(2, 4), (2, 4), (1, 4), (1, 3)]
    assert [len(each["sums"]) for each in outputs] == [5, 1]


def test_inputs_in_another_order_are_the_same_inputs() -> None:
    a = request(1, 4, 0)
    mask = np.ones((1, 2), np.int64)
    one = InferRequest("text", {"ids": a.inputs["ids"], "mask": mask}, 1, Constraints(), 0.0)
    two = InferRequest("text", {"mask": mask, "ids": a.inputs["ids"]}, 1, Constraints(), 0.0)
    sums = Sums()
    answers(run(sums, [one, two], (SUMS,), largest=8))
    assert sums.shapes == [(2, 4)]


class Masked(Sums):
    """Sums of what `mask`, as long as the row, leaves."""

    def infer(self, inputs: Tensors) -> dict[str, Tensor]:
        time.sleep(0.02)
        return super().infer({"ids": inputs["ids"] * inputs["mask"]})


def masked(length: int, mask: int, first: int) -> InferRequest:
    ids = request(1, length, first).inputs["ids"]
    ones = np.ones((1, mask), np.int64)
    return InferRequest("text", {"ids": ids, "mask": ones}, 1, Constraints(), 0.0)


def test_inputs_that_disagree_fail_the_requests_of_their_shapes_alone() -> None:
    requests = [masked(5, 5, 1), masked(5, 7, 2), masked(3, 3, 3), masked(5, 7, 4), masked(5, 5, 5)]
    begun_s = time.monotonic()
    ran = run(Masked(), requests, (SUMS,), largest=8)
    took_s = time.monotonic() - begun_s
    for index in (0, 2, 4):
        outcome = ran.outcomes[index]
        assert not isinstance(outcome, Exception)
        np.testing.assert_array_equal(
            outcome["sums"], np.cumsum(requests[index].inputs["ids"])[None]
        )
    for index in (1, 3):
        with pytest.raises(ValueError, match="broadcast"):
            raise ran.outcomes[index]  # type: ignore[misc]
    # One group of three took it.
    assert 0.02 <= ran.failed_s <= took_s - 0.04


def test_a_group_that_is_answered_with_something_else_fails_alone() -> None:
    # Three sums were promised of a row; a row of four has four.
    promised = TensorSpec(name="sums", datatype="INT64", shape=(-1, 3))
    requests = [request(1, 4, 0), request(2, 3, 0)]
    wrong, right = run(Sums(), requests, (promised,), largest=8).outcomes
    assert isinstance(wrong, EngineError) and "shape (1, 4)" in str(wrong)
    assert not isinstance(right, Exception) and right["sums"].shape == (2, 3)
