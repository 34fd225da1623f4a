"""What a choice among variants came to, beside another: for metrics, after the answer.

Nothing here decides anything.
"""

from __future__ import annotations

from router.choices import Choices
from router.constraints import Constraints
from router.decision import Decision
from router.menu import Offer, batch_ms
from router.telemetry import OVERHEAD_START_MS

# Reasons of a decision that say by themselves why another variant ran.
_TELLING = frozenset(("under-load", "shifted-at-dispatch", "retried", "relaxed"))


def reference_share(ran: Offer, reference: Offer | None, rows: int) -> float:
    """How many times as much lane time a batch of `rows` rows takes on the reference variant.

    By the medians of both cards: the machine was as fast or slow for the one as it would have been
    for the other. 1 where there is no reference to compare with.
    """
    if reference is None or reference is ran:
        return 1.0
    own_ms = batch_ms(ran.typical_ms, rows)
    return batch_ms(reference.typical_ms, rows) / own_ms if own_ms > 0 else 1.0


def shift(
    decision: Decision, choices: Choices, constraints: Constraints, rows: int
) -> tuple[str, str] | None:
    """The variant that an idle machine would have answered with, and why it was another.

    An idle machine gives the best of `choices` whose card makes the deadline.

    Returns:
        None where it would have been the same, or none had been in time.
    """
    limit_ms = constraints.max_latency_ms
    for offer in choices.offers:
        if limit_ms is None or batch_ms(offer.promised_ms, rows) + OVERHEAD_START_MS <= limit_ms:
            break
    else:
        return None
    if offer.name == decision.variant:
        return None
    if decision.reason in _TELLING:
        return offer.name, decision.reason
    for refusal in decision.refused:
        if refusal.variant == offer.name and refusal.constraint == "ready":
            return offer.name, "not-ready"
    return offer.name, "under-load" if decision.queued else "deadline"
