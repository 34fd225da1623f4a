"""What an answer's decision says when something else ran than was foreseen."""

from __future__ import annotations

import math

from gateway.execution.tickets import Result, Ticket
from router.decision import Decision
from router.menu import Offer, batch_ms


def promised(ticket: Ticket, variant: str) -> Offer:
    """The build of `variant` that the request was promised; another may have its name by now."""
    return next(offer for offer in ticket.waiting.choices.offers if offer.name == variant)


def shifted(
    decision: Decision, ran: Offer, foreseen: Offer, result: Result, rows: int, left_ms: float
) -> Decision:
    """`decision` with the variant that ran instead of the one that was foreseen.

    What was predicted at arrival stands: the variant was chosen to keep it.

    Args:
        left_ms: from the beginning of its batch until its deadline; infinite without one.
    """
    faster = ran.row_ms < foreseen.row_ms
    if left_ms == math.inf or (faster and left_ms >= batch_ms(foreseen.promised_ms, rows)):
        # The one that was foreseen would have been in time.
        changed = f"lane time was {'scarcer' if faster else 'less scarce'} than predicted"
    else:
        changed = f"{'less' if faster else 'more'} time was left than predicted"
    return decision._replace(
        variant=ran.name,
        reason="retried" if result.failed else "shifted-at-dispatch",
        why=f"run again on it after {result.failed} had failed"
        if result.failed
        else f"chosen when a lane came free: {changed}, which was for {foreseen.name}",
        accuracy=ran.accuracy,
        cost_usd_per_million=ran.cost_usd_per_million(rows),
        allowed=(ran.name, *[name for name in decision.allowed if name != ran.name]),
        refused=tuple([refusal for refusal in decision.refused if refusal.variant != ran.name]),
    )
