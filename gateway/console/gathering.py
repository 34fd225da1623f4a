"""The console of one process: it listens to the journal, and answers what the page asks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from gateway.console import everybody, joining
from gateway.console.decisions import Decisions
from gateway.console.everybody import Question
from gateway.console.history import MINUTES, History, joined
from gateway.console.state import Kept, share
from gateway.journal import Journal
from gateway.messages import InferRequest, InferResponse, Origin
from gateway.processes.worker import Place
from gateway.service import Service
from router.constraints import Constraints
from router.errors import GearshiftError, Overloaded

_SAMPLE_EVERY_S = 1.0
_LIVE_S = 60


class Console:
    """A journal's listener that costs a request about a microsecond; what is shown is made when
    somebody looks. Used on the event loop's thread alone."""

    def __init__(self, service: Service, journal: Journal, place: Place | None) -> None:
        self._service = service
        self._place = place
        self._metrics = journal.metrics
        self._decisions = Decisions(lambda model: model in service.fleet.everything())
        self._history = History()
        self._kept = Kept(service.settings.store)
        journal.add(self)

    def answered(self, request: InferRequest, response: InferResponse, total_s: float) -> None:
        """As `gateway.journal.Listener`."""
        at_s = time.time()
        self._decisions.answered(request, response, total_s, at_s)
        self._history.answered(request, response, total_s, at_s, self._metrics.default)

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        origin: Origin,
        request: InferRequest | None,
    ) -> None:
        """As `gateway.journal.Listener`."""
        at_s = time.time()
        self._decisions.failed(model, error, total_s, origin, request, at_s)
        if model in self._service.fleet.everything():
            stated = None if request is None else request.constraints
            self._history.failed(model, error, total_s, at_s, stated, self._metrics.default)

    def shed(
        self,
        model: str,
        error: Overloaded,
        origin: Origin,  # noqa: ARG002
        constraints: Constraints,
    ) -> Callable[[], None]:
        """As `gateway.journal.Sheds`: repeated refusals are counted, and not shown one by one."""
        if model not in self._service.fleet.everything():
            return lambda: None
        default = self._metrics.default
        return lambda: self._history.failed(model, error, 0.0, time.time(), constraints, default)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at the lanes once a second, and answer the other workers, while it is entered."""
        sampling = asyncio.create_task(self._sample())
        async with contextlib.AsyncExitStack() as open_sockets:
            if self._place is not None:
                await open_sockets.enter_async_context(
                    everybody.answering(self._place, self._answer)
                )
            try:
                yield
            finally:
                sampling.cancel()

    async def state(self) -> dict[str, Any]:
        """What is served now by all workers: see `gateway.console.joining.state`."""
        shares = await self._asked({"what": "state"})
        own = 0 if self._place is None else self._place.order.number
        workers = 1 if self._place is None else self._place.order.count
        told = joining.state(own, shares, workers)
        self._kept.add(told["models"], self._service.fleet)
        return {"now_ms": round(time.time() * 1000), **told}

    async def history(self, minutes: int = MINUTES) -> dict[str, Any]:
        """What became of requests in the last `minutes`, up to 15, of all workers."""
        return joined((await self._asked({"what": "history", "minutes": minutes})).values())

    async def decisions(
        self, since: int, model: str | None, outcome: str | None, limit: int
    ) -> dict[str, Any]:
        """The latest decisions after the one with that number, of all workers.

        Args:
            model, outcome: of these alone; see `gateway.console.decisions.Decisions.since`.
        """
        which = {"model": model, "outcome": outcome}
        question = {"what": "decisions", "since": since, "limit": limit, **which}
        return joining.decisions(await self._asked(question), limit)

    async def _asked(self, question: Question) -> dict[int, Any]:
        return await everybody.asked(self._place, question, self._answer(question))

    def _answer(self, question: Question) -> Any:
        """What this process answers.

        Raises:
            ValueError: the question is none that there is.
        """
        at_s = time.time()
        match question["what"]:
            case "state":
                lately = self._history.lately(_LIVE_S, at_s)
                return share(self._service, lately)
            case "history":
                return self._history.share(question["minutes"], at_s)
            case "decisions":
                model = question["model"]
                found = self._decisions.since(
                    question["since"],
                    self._names,
                    question["limit"],
                    model=model,
                    outcome=question["outcome"],
                )
                outcomes = self._decisions.outcomes(model)
                return {"last": self._decisions.now(), "outcomes": outcomes, "decisions": found}
            case other:
                raise ValueError(f"nothing is known of {other!r}")

    def _names(self, model: str) -> Collection[str]:
        served = self._service.fleet.everything().get(model)
        if served is None:
            return ()
        return {*served.states, *served.rollout.aliases, "reference"}

    async def _sample(self) -> None:
        while True:
            at_s = time.time()
            report = self._service.lanes_report()
            busy = report.get("busy", 0)
            assert isinstance(busy, int)
            self._history.sampled(self._service.queued_by_model().total(), busy, at_s)
            await asyncio.sleep(_SAMPLE_EVERY_S)
