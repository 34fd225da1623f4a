"""The stages of a request, one after the other, from the moments that its marks hold.

    receive  until it was read and decoded          queue    until a lane took it
    prepare  a processor makes tensors of it        infer    its batch ran
    route    until it was decided and queued        respond  until its answer was ready to be sent

One that ended sooner ends in the stage that it had come to. One whose lane or engine failed was
queued, and ran, more than once.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.tracing.marks import Marks, Run


class Phase(NamedTuple):
    """One stage, from its beginning to its end, in monotonic seconds."""

    name: str
    start_s: float
    end_s: float
    run: Run | None = None


def begun_s(marks: Marks) -> float:
    """When the request began: it may have come whole before anybody looked at it."""
    return min(marks.came_s, marks.received_s) if marks.received_s else marks.came_s


def phases(marks: Marks, ended_s: float) -> list[Phase]:
    """The stages in their order, each beginning where the one before it ends."""
    found: list[Phase] = []
    at = begun_s(marks)

    def until(name: str, moment_s: float, run: Run | None = None) -> None:
        nonlocal at
        # A lane may take a request before it is noted that it was queued.
        end = min(max(at, moment_s or ended_s), ended_s)
        found.append(Phase(name, at, end, run))
        at = end

    until("receive", marks.parsed_s)
    if not marks.parsed_s:
        return found
    if marks.prepared_s:
        until("prepare", marks.prepared_s)
    until("route", marks.runs[0].started_s if marks.runs and not marks.routed_s else marks.routed_s)
    if not (marks.routed_s or marks.runs):
        return found
    for run in marks.runs:
        until("queue", run.started_s)
        until("infer", run.finished_s, run)
    if not marks.runs:
        until("queue", 0.0)
    elif marks.runs[-1].finished_s:
        until("respond", 0.0)
    return found
