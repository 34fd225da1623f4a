"""The keeper of the lanes: which of them work, and how one that was lost comes back.

A lane does not outlive its faults, its number does. One whose process ended is restored by its own
thread, while its requests run on the others. One that does not come back from its engine is given
up: its requests run elsewhere, another thread takes its number, and whatever the old one still
brings is thrown away, as its stint is over.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.engines import Program
from gateway.execution.lease import Loaded
from gateway.execution.tickets import Ticket
from gateway.hosts import Host, LaneLost
from gateway.lifecycle.fleet import warm_up
from router.breaker import Outcome
from router.card import VariantCard
from router.dispatch import Assignment
from router.scheduler import Scheduler

_LOG = logging.getLogger(__name__)

# How long restoring a lane is thought to take until one was restored, and after how long it counts
# as hanging: a process with many variants loads for a while.
_RESTORE_S = 1.0
_RESTORE_LIMIT_S = 120.0
# Between two attempts to restore a lane: from the first to the longest, doubling.
_RETRY_S = (0.2, 15.0)
# Threads that hang in an engine's code, at most, before their lanes stay away; or one a lane.
_LEFT_BEHIND = 4
# When a lane that stays away is expected back.
_AWAY_S = 86400.0


class Batch(NamedTuple):
    """What a lane runs."""

    assignment: Assignment
    tickets: list[Ticket]
    started_s: float


@dataclass(slots=True)
class Lane:
    """One lane, now. Changed under the lock alone.

    Attributes:
        stint: which of the threads that had this number has it.
        running, loaded: what it runs, and of which build.
        warming: what is warmed up after it was lost.
        lost_s: since when it is lost, 0 where it is not; `attempt_s`, since when it is being
            restored.
    """

    number: int
    host: Host
    stint: int = 0
    running: Batch | None = None
    loaded: Loaded | None = None
    warming: VariantCard | None = None
    lost_s: float = 0.0
    attempt_s: float = 0.0
    thread: threading.Thread | None = None


class Watcher(Protocol):
    """Who is told what happened on the lanes. All of it is called on the loop's thread."""

    def batch(self, model: str, variant: str, rows: int, seconds: float) -> None:
        """A batch answered so many rows; rows that failed, and their seconds, are not in it."""

    def batch_failed(self, model: str, variant: str, retried: int) -> None:
        """A batch failed at least in part, and so many of its requests are run again."""

    def lane_ran(self, seconds: float) -> None:
        """A lane was busy with a batch for so long, however it ended."""

    def lane_lost(self) -> None:
        """A lane's process ended, or its engine did not come back."""


class Keeper:
    """Starts the lanes' threads, watches them, and puts others into their place.

    Args:
        work: the condition whose lock guards the scheduler and the lanes.
        serve: a thread's work, until its lane's stint is another.
        given_up: called on the loop's thread with a lane's batch that does not come back, and for
            how many seconds it ran; None when the lane was being restored.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        hosts: Sequence[Host],
        work: threading.Condition,
        serve: Callable[[Lane, int], None],
        given_up: Callable[[Batch | None, float], None],
        *,
        max_batch: int,
        timeout_s: float,
    ) -> None:
        self._scheduler = scheduler
        self._work = work
        self._serve = serve
        self._given_up = given_up
        self._max_batch = max_batch
        self._timeout_s = timeout_s
        self._restore_s = _RESTORE_S
        self._stuck = False
        self._ending = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.left_behind: list[threading.Thread] = []
        self.lanes = [Lane(number, host) for number, host in enumerate(hosts)]

    def start(self) -> None:
        """Start the threads, and watch them from now on."""
        for lane in self.lanes:
            self._start(lane, self._serve)
        if self._timeout_s < math.inf:
            self._look()

    @property
    def busy(self) -> int:
        """Lanes that run a batch now."""
        return sum([lane.running is not None for lane in self.lanes])

    @property
    def lost(self) -> int:
        """Lanes that are being restored, or stay away."""
        return sum([lane.lost_s > 0 for lane in self.lanes])

    @property
    def alive(self) -> bool:
        """Whether the lanes work, or soon will."""
        limit_s = time.monotonic() - _RESTORE_LIMIT_S
        return not (self._stuck or all(0 < lane.lost_s < limit_s for lane in self.lanes))

    def report(self) -> dict[str, object]:
        """What the lanes do, and the breakers that are not closed, by MODEL/VARIANT."""
        with self._work:
            breakers = self._scheduler.breakers.report(time.monotonic())
        lanes = len(self.lanes)
        return {"lanes": lanes, "busy": self.busy, "lost": self.lost, "breakers": breakers}

    def end(self) -> None:
        """Restore no lane any more."""
        self._ending.set()

    def join(self, patience_s: float) -> bool:
        """Whether all threads have ended within `patience_s`; blocks."""
        give_up_s = time.monotonic() + patience_s
        threads = [lane.thread for lane in self.lanes if lane.thread] + self.left_behind
        for thread in threads:
            thread.join(max(0.0, give_up_s - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def judge(self, model: str, variant: str, outcome: Outcome) -> None:
        """A batch of `variant` ended so; the lock is held."""
        scheduler = self._scheduler
        if not scheduler.breakers and outcome in ("success", "none"):
            return
        now_s = time.monotonic()
        if scheduler.ended(model, variant, outcome, now_s):
            left_s = scheduler.breakers.of(model, variant, now_s).until_s - now_s
            _LOG.error("%s/%s failed too often: left alone for %.3g s", model, variant, left_s)
        # Requests may have waited for what this batch would show.
        self._work.notify_all()

    def convict(self, model: str, variant: str) -> None:
        """`variant` was to blame for a batch that failed earlier."""
        with self._work:
            self.judge(model, variant, "failure")

    def mark_lost(self, lane: Lane) -> None:
        """`lane` is gone until it is restored; the lock is held."""
        now_s = time.monotonic()
        lane.lost_s = lane.lost_s or now_s
        lane.attempt_s = now_s
        self._scheduler.busy_until_s[lane.number] = now_s + self._restore_s

    def restored(self, lane: Lane, stint: int) -> bool:
        """Bring `lane` back, however often it takes; False where it is not wanted any more.

        On the lane's own thread.
        """
        pause_s, longest_s = _RETRY_S
        while not self._ending.is_set():
            with self._work:
                if lane.stint != stint:
                    return False
                self.mark_lost(lane)
                began_s = lane.attempt_s
            try:
                for program, card in lane.host.restore():
                    self._warm(lane, program, card)
            except Exception as error:  # engines have no common base for what they raise
                _LOG.error("lane %d cannot be restored: %s", lane.number, error)
                self._ending.wait(pause_s)
                pause_s = min(2 * pause_s, longest_s)
                continue
            with self._work:
                if lane.stint != stint:
                    return False
                self._restore_s = max(_RESTORE_S, time.monotonic() - began_s)
                lane.lost_s = lane.attempt_s = 0.0
                self._scheduler.busy_until_s[lane.number] = 0.0
            _LOG.warning("lane %d serves again", lane.number)
            return True
        return False

    def _warm(self, lane: Lane, program: Program, card: VariantCard) -> None:
        """Warm up a program that was restored; one that fails is its breaker's affair."""
        name = card.model, card.variant
        with self._work:
            if self._scheduler.breakers.of(*name, time.monotonic()).state != "closed":
                return
            lane.warming = card
        try:
            warm_up(program, card, self._max_batch)
        except LaneLost:
            # It would do so each time that the lane is restored.
            with self._work:
                self.judge(*name, "fatal")
            raise
        except Exception as error:  # engines have no common base for what they raise
            _LOG.error("%s/%s fails since lane %d is back: %s", *name, lane.number, error)
        finally:
            lane.warming = None

    def _start(self, lane: Lane, work: Callable[[Lane, int], None]) -> None:
        lane.thread = threading.Thread(
            target=work, args=(lane, lane.stint), name=f"lane-{lane.number}", daemon=True
        )
        lane.thread.start()

    def _resume(self, lane: Lane, stint: int) -> None:
        if self.restored(lane, stint):
            self._serve(lane, stint)

    # From here on everything runs on the event loop's thread.

    def _look(self) -> None:
        """Give up each lane that has not come back for too long, and look again later."""
        now_s = time.monotonic()
        for lane in self.lanes:
            running = lane.running
            if running is not None and now_s - running.started_s > self._timeout_s:
                self._give_up(lane, running)
            elif 0 < lane.attempt_s < now_s - max(_RESTORE_LIMIT_S, self._timeout_s):
                self._give_up(lane, None)
        self._loop.call_later(min(1.0, self._timeout_s / 4), self._look)

    def _give_up(self, lane: Lane, running: Batch | None) -> None:
        with self._work:
            if lane.running is not running:
                return  # it has come back in this moment
            loaded, lane.loaded, lane.running = lane.loaded, None, None
            lane.stint += 1
            self.mark_lost(lane)
            hung = None
            if running is not None:
                hung = running.assignment.model, running.assignment.variant
            elif lane.warming is not None:
                hung = lane.warming.model, lane.warming.variant
            if hung is not None:
                _LOG.error("lane %d: %s/%s does not come back: given up", lane.number, *hung)
                self.judge(*hung, "fatal")
        lane.host.give_up(None if loaded is None else loaded.programs[lane.number])
        self._given_up(running, self._timeout_s)
        behind = [thread for thread in self.left_behind if thread.is_alive()]
        assert lane.thread is not None
        self.left_behind = [*behind, lane.thread]
        if len(self.left_behind) <= max(_LEFT_BEHIND, len(self.lanes)):
            self._start(lane, self._resume)
        elif not self._ending.is_set():
            _LOG.error("lane %d stays away: %d threads hang", lane.number, len(self.left_behind))
            self._stuck = True
            lane.attempt_s = 0.0
            self._scheduler.busy_until_s[lane.number] = time.monotonic() + _AWAY_S
