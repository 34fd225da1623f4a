"""Tickets: a request's place in the queue, and whether it gets a second one when its batch failed.

A request is run again where that may help and harms nobody: once on another variant that may
answer it, after an engine failed on it; once more, by itself, after its lane was lost, for it may
be what the lane died of; and as often as it takes where its turn had not come.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from gateway.engines import EngineError, Tensor
from gateway.execution.batch import NotRun, OwnFault
from gateway.hosts import LaneLost
from gateway.messages import InferRequest, Told
from router.choices import without
from router.decision import Decision
from router.errors import EngineFailed, InvalidRequest
from router.queue import Waiting

# A lane that dies twice under the same request, of which the second time it ran by itself, dies of
# that request.
_LOSSES = 2


class Hung(EngineError):
    """The engine did not come back with an answer."""


class Result(NamedTuple):
    """What a lane did for one request: monotonic times, and the rows it shared the batch with.

    `failed` is the variant that failed on the request before, if any.
    """

    outputs: dict[str, Tensor]
    variant: str
    started_s: float
    finished_s: float
    batch_rows: int
    failed: str = ""


@dataclass(slots=True)
class Fault:
    """What one batch failed with; its requests share it.

    Attributes:
        judged: whether it is known whose fault it is, the variant's or the requests' own. An
            answer by another variant tells: then it was the variant's.
    """

    variant: str
    error: Exception
    judged: bool = False


class Ticket(NamedTuple):
    """A request's place in the queue; `done` gets its result or its error.

    Attributes:
        fault: what its first run failed with.
        losses: how often its lane was lost while it ran.
    """

    waiting: Waiting
    request: InferRequest
    decision: Decision
    told: Told
    done: asyncio.Future[Result]
    fault: Fault | None = None
    losses: int = 0


def again(ticket: Ticket, fault: Fault) -> Ticket | None:
    """Its place in the queue once more; None where nothing else could answer it."""
    error = fault.error
    if isinstance(error, NotRun):
        return ticket
    others = without(ticket.waiting.choices, fault.variant)
    if isinstance(error, LaneLost):
        if ticket.losses + 1 == _LOSSES:
            return None
        # What the lane died of is not known: where another variant may answer, it is safer.
        ticket = ticket._replace(losses=ticket.losses + 1)
        others = others if others.offers else ticket.waiting.choices
    elif isinstance(error, OwnFault) or ticket.fault is not None or not others.offers:
        return None
    return ticket._replace(waiting=ticket.waiting._replace(choices=others), fault=fault)


def failed(ticket: Ticket, fault: Fault) -> EngineFailed | InvalidRequest:
    """What its caller is told. What failed first is named: what came after was a second try."""
    if isinstance(fault.error, OwnFault):
        return fault.error.refusal
    first = ticket.fault or fault
    why = str(first.error)
    if isinstance(first.error, LaneLost) and isinstance(fault.error, LaneLost):
        why += ", and another one after it, while it ran this request"
    return EngineFailed(f"{ticket.request.model}/{first.variant}: {why}", first.variant)
