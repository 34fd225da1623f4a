"""A model's door: what a request may bring instead of the network's inputs, and who makes them.

Behind every protocol alike, so that text and pictures come in by all of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from gateway import aside, processors
from gateway.engines import Tensor
from gateway.messages import InferRequest
from gateway.processors import Process, ProcessorError
from gateway.wire import v2
from router.card import TensorSpec, VariantCard
from router.constraints import Constraints
from router.errors import CallerLeft, DeadlinePassed, Overloaded

_Made = TypeVar("_Made")

_LOG = logging.getLogger(__name__)

# When to come again while a processor cannot keep up, and the least that a deadline can be.
_AGAIN_S = 1.0
_LEAST_MS = 0.001
_WATCH_AFTER_S = 0.01


class Door:
    """The door of a model whose card declares a processor.

    Attributes:
        inputs: what requests may hold; `inputs.processed` is None once it is known that the
            processor cannot be opened.
    """

    def __init__(self, card: VariantCard) -> None:
        assert card.processor is not None
        self.record = card.processor
        self._model = card.model
        own = TensorSpec(name=self.record.input, datatype="BYTES", shape=(-1,))
        rest = [spec for spec in card.inputs if spec.name not in self.record.fills]
        self.inputs = v2.Inputs(card.inputs, processed=(own, *rest))
        self._equal = card.equal_sizes()
        self._process: Process | None = None
        self._waiting = 0

    def open(self, folder: Path) -> None:
        """Open the processor of a variant's folder, once. Takes long: not for the event loop.

        Where it cannot be opened, the model serves those who send the inputs themselves.
        """
        if self._process is not None or self.inputs.processed is None:
            return
        try:
            self._process = processors.open_one(self.record, folder, self.inputs)
        except ProcessorError as error:
            self.inputs.processed = None
            _LOG.error("%s takes no %s: %s", self._model, self.record.input, error)

    def is_for(self, inputs: Mapping[str, Tensor]) -> bool:
        """Whether a request's inputs are what the processor reads."""
        return self.record.input in inputs

    async def through(
        self,
        request: InferRequest,
        constraints: Constraints,
        most: int,
        left: Callable[[], Awaitable[None]],
    ) -> tuple[InferRequest, Constraints]:
        """`request` with the network's inputs, and what it demands of the time that is left.

        Args:
            constraints: what it demands, the operator's defaults included.
            most: how many may wait for it at once.
            left: makes an awaitable that returns when the caller has gone.

        Raises:
            InvalidRequest: an element is not what the processor reads, or sizes disagree.
            Overloaded: too many wait.
            DeadlinePassed, CallerLeft: before the inputs were made.
        """
        if self._waiting >= most:
            raise Overloaded(
                f"{self._waiting} requests wait until their {self.record.input} is processed",
                retry_after_s=_AGAIN_S,
            )
        limit_ms = constraints.max_latency_ms
        give_up_s = math.inf
        if limit_ms is not None and "latency" not in constraints.relax:
            give_up_s = request.received_s + limit_ms / 1000
        asked = _Asked(give_up_s)
        self._waiting += 1
        try:
            work = asyncio.ensure_future(aside.run(self._processed, request.inputs, asked))
            inputs = await _unless(work, give_up_s, left)
        finally:
            self._waiting -= 1
            asked.given_up = True
        if limit_ms is not None:
            now_s = time.monotonic()
            if now_s > give_up_s:
                raise _late()
            left_ms = limit_ms - (now_s - request.received_s) * 1000
            constraints = replace(constraints, max_latency_ms=max(left_ms, _LEAST_MS))
        return request._replace(inputs=inputs), constraints

    def _processed(self, inputs: Mapping[str, Tensor], asked: _Asked) -> dict[str, Tensor]:
        asked.go_on()
        assert self._process is not None  # a variant is ready, so it was opened
        made = self._process(inputs[self.record.input], asked.go_on)
        whole = {name: made[name] if name in made else inputs[name] for name in self.inputs}
        v2.check_sizes(whole, self._equal)
        return whole


class _Asked:
    """Whether somebody still waits for what a thread makes."""

    def __init__(self, give_up_s: float) -> None:
        self._give_up_s = give_up_s
        self.given_up = False

    def go_on(self) -> None:
        if self.given_up or time.monotonic() > self._give_up_s:
            raise _late()


async def _unless(
    work: asyncio.Future[_Made], give_up_s: float, left: Callable[[], Awaitable[None]]
) -> _Made:
    """What `work` makes, unless the deadline passes or the caller leaves first."""
    gone: asyncio.Future[None] | None = None
    try:
        # Most is made sooner than watching the caller would be worth.
        await asyncio.wait((work,), timeout=min(_WATCH_AFTER_S, _until(give_up_s)))
        if not work.done():
            gone = asyncio.ensure_future(left())
            rest_s = None if give_up_s == math.inf else _until(give_up_s)
            await asyncio.wait((work, gone), timeout=rest_s, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        if gone is not None and gone.done():
            raise CallerLeft("the caller left")
        raise _late()
    finally:
        work.cancel()
        if gone is not None:
            gone.cancel()


def _until(then_s: float) -> float:
    return max(then_s - time.monotonic(), 0.0)


def _late() -> DeadlinePassed:
    return DeadlinePassed("the deadline passed before the inputs were processed")
