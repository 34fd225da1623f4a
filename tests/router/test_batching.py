"""Batches of requests that were given their variant when they arrived."""

from __future__ import annotations

import pytest

from router.batching import batch
from tests.router.policy_rig import (
    MAX_BATCH,
    moment,
    tickets,
    waiting,
)


def test_a_batch_is_of_the_heads_variant_in_the_order_of_urgency() -> None:
    queue = [
        waiting(0, 10.0, "int8"),
        waiting(1, 11.0, "bf16"),
        waiting(2, 12.0, "int8"),
        waiting(3, 13.0, "int8"),
    ]
    made = batch(queue, moment())
    assert made.variant == "int8"
    assert tickets(made.members) == [0, 2, 3]
    assert made.promised_ms == pytest.approx(1.2 * (0.1 + 0.57 * 3))


def test_a_batch_is_as_large_as_the_heads_deadline_allows() -> None:
    # 1.2 (0.1 + 0.57 n) <= 5 for n up to 7.
    queue = [waiting(n, 5.0 + n, "int8") for n in range(20)]
    assert tickets(batch(queue, moment()).members) == list(range(7))
    queue = [waiting(n, 90.0 + n, "int8") for n in range(50)]
    assert len(batch(queue, moment()).members) == MAX_BATCH


def test_an_expired_head_does_not_run_nor_shrink_the_batch() -> None:
    queue = [waiting(0, 0.5, "int8"), *[waiting(n, 30.0, "int8") for n in range(1, 9)]]
    made = batch(queue, moment())
    assert tickets(made.expired) == [0]
    assert tickets(made.members) == list(range(1, 9))


def test_one_that_only_makes_it_at_the_median_runs_alone() -> None:
    queue = [waiting(0, 0.7, "int8"), waiting(1, 30.0, "int8")]
    assert tickets(batch(queue, moment()).members) == [0]


def test_one_whose_variant_is_not_ready_any_more_leaves() -> None:
    queue = [waiting(0, 30.0, "int8"), waiting(1, 30.0, "tiny")]
    made = batch(queue, moment(ready=frozenset({"tiny"})))
    assert (tickets(made.expired), tickets(made.members)) == ([0], [1])
