"""What an answer's decision says when something else ran than was foreseen."""

from __future__ import annotations

from dataclasses import replace

from gateway.tickets import Result, Ticket
from router.decision import Decision
from router.menu import Offer


def promised(ticket: Ticket, variant: str) -> Offer:
    """The build of `variant` that the request was promised; another may have its name by now."""
    return next(offer for offer in ticket.waiting.choices.offers if offer.name == variant)


def shifted(decision: Decision, ran: Offer, foreseen: Offer, result: Result, rows: int) -> Decision:
    """`decision` with the variant that ran instead of the one that was foreseen.

    What was predicted at arrival stands: the variant was chosen to keep it.
    """
    less = "less" if ran.row_ms < foreseen.row_ms else "more"
    return replace(
        decision,
        variant=ran.name,
        reason="retried" if result.failed else "shifted-at-dispatch",
        why=f"run again on it after {result.failed} had failed"
        if result.failed
        else f"chosen when a lane came free: {less} time was left than predicted, "
        f"which was for {foreseen.name}",
        accuracy=ran.accuracy,
        cost_usd_per_million=ran.cost_usd_per_million(rows),
        allowed=(ran.name, *[name for name in decision.allowed if name != ran.name]),
        refused=tuple([refusal for refusal in decision.refused if refusal.variant != ran.name]),
    )
