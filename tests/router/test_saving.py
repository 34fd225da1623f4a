"""What a choice came to beside another: the reference's lane time, and shifts."""

from __future__ import annotations

import pytest

from router.choices import eligible
from router.constraints import NONE, Constraints
from router.decision import Decision, Refusal
from router.saving import reference_share, shift
from tests.router.builders import menu, offer

FP32 = offer("fp32", 0.95, first_ms=8.0, row_ms=4.0)
INT8 = offer("int8", 0.93, first_ms=2.0, row_ms=1.0)
SMALL = offer("small", 0.90, first_ms=0.5, row_ms=0.25)
MENU = menu(FP32, INT8, SMALL)
CHOICES = eligible(NONE, "accuracy", MENU, 0.005, 1).choices


def decided(variant: str, **change: object) -> Decision:
    made = Decision("m", "accepted", "accuracy", variant=variant, choices=CHOICES)
    return made._replace(**change)  # type: ignore[arg-type]


def test_the_reference_takes_as_much_longer_as_the_cards_say_at_that_batch() -> None:
    assert reference_share(INT8, FP32, 1) == 4.0
    steep = offer("steep", first_ms=2.0, row_ms=4.0)
    assert reference_share(steep, FP32, 5) == (8 + 4 * 4) / (2 + 4 * 4)
    # More than the cards hold runs in several batches, of the one as of the other.
    assert reference_share(INT8, FP32, 24) == 4.0


@pytest.mark.parametrize("reference", [INT8, None])
def test_nothing_is_saved_on_the_reference_or_without_one(reference: object) -> None:
    assert reference_share(INT8, reference, 3) == 1.0  # type: ignore[arg-type]


def test_the_best_is_no_shift() -> None:
    assert shift(decided("fp32"), CHOICES, NONE, 1) is None


@pytest.mark.parametrize("reason", ["under-load", "shifted-at-dispatch", "retried", "relaxed"])
def test_a_reason_that_tells_is_the_shifts(reason: str) -> None:
    assert shift(decided("small", reason=reason), CHOICES, NONE, 1) == ("fp32", reason)


def test_a_deadline_that_the_best_never_makes_shifts_nothing() -> None:
    tight = Constraints(max_latency_ms=5.0)  # fp32 takes 10 ms, int8 2.5
    assert shift(decided("int8", reason="under-load"), CHOICES, tight, 1) is None
    assert shift(decided("small", reason="under-load"), CHOICES, tight, 1) == ("int8", "under-load")
    # Of four rows int8 takes too long as well.
    assert shift(decided("small", reason="under-load"), CHOICES, tight, 4) is None


def test_a_deadline_that_nothing_makes_shifts_nothing() -> None:
    late = Constraints(max_latency_ms=0.1)
    assert shift(decided("small", reason="relaxed"), CHOICES, late, 1) is None


def test_why_the_best_did_not_run() -> None:
    unready = decided("int8", refused=(Refusal("fp32", "ready"),))
    assert shift(unready, CHOICES, NONE, 1) == ("fp32", "not-ready")
    late = (Refusal("fp32", "max_latency_ms", 10.0, 20.0),)
    queued = decided("int8", refused=late, queued=True)
    assert shift(queued, CHOICES, NONE, 1) == ("fp32", "under-load")
    assert shift(decided("int8", refused=late), CHOICES, NONE, 1) == ("fp32", "deadline")
