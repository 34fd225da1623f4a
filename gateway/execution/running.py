"""One batch on one lane: what came of it, and what that says of the variant."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from gateway.engines import EngineError
from gateway.execution import batch
from gateway.execution.keeper import Lane
from gateway.execution.tickets import Ticket
from gateway.lifecycle.fleet import Fleet
from gateway.tracing.marks import Run
from router.breaker import Outcome
from router.dispatch import Assignment

_LOG = logging.getLogger(__name__)


def run(
    fleet: Fleet,
    assignment: Assignment,
    tickets: Sequence[Ticket],
    lane: Lane,
    max_batch: int,
) -> tuple[batch.Ran, Outcome]:
    """Run `tickets` on `lane`. Whatever goes wrong ends the batch, not the lane."""
    marked = [ticket.request.origin.marks for ticket in tickets if ticket.request.origin.marks]
    if not marked:
        return _run(fleet, assignment, tickets, lane, max_batch)
    rows = sum(ticket.request.rows for ticket in tickets)
    model, variant = assignment.model, assignment.variant
    traced = Run(model, variant, lane.number, rows, len(tickets), time.monotonic(), marked)
    for marks in marked:
        marks.runs.append(traced)
    ran, outcome = _run(fleet, assignment, tickets, lane, max_batch)
    traced.finished_s, traced.failed = time.monotonic(), ran.failed
    return ran, outcome


def _run(
    fleet: Fleet,
    assignment: Assignment,
    tickets: Sequence[Ticket],
    lane: Lane,
    max_batch: int,
) -> tuple[batch.Ran, Outcome]:
    name = f"{assignment.model}/{assignment.variant}"
    try:
        model = fleet.held(assignment.model)
        requests = [ticket.request for ticket in tickets]
        alone = [ticket.losses > 0 for ticket in tickets]
        loaded = lane.loaded = model.build(assignment.offer)
        with loaded.lease(lane.number) as program:
            ran = batch.run(program, requests, model.outputs, max_batch, alone, loaded.card.padding)
            if not ran.failed:
                return ran, "success"
            outcome = batch.judged(ran.outcomes, program, loaded.card)
    except Exception as error:
        _LOG.exception("%s failed on a batch", name)
        return batch.Ran([error] * len(tickets), 0.0, len(tickets)), "failure"
    # Requests of one group share their error.
    for fault in dict.fromkeys(each for each in ran.outcomes if isinstance(each, Exception)):
        if not isinstance(fault, batch.NotRun):
            # An engine's own words say all; of what it did not mean to raise, a trace says more.
            trace = None if isinstance(fault, EngineError) else fault
            _LOG.error("%s failed on a batch: %s", name, fault, exc_info=trace)
    return ran, outcome
