"""A model's door: what a request may bring instead of the network's inputs, and who makes them.

Behind every protocol alike, so that text and pictures come in by all of them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gateway import aside, processors, v2
from gateway.engines import Tensor
from gateway.messages import InferRequest
from gateway.processors import Process, ProcessorError
from router.card import TensorSpec, VariantCard
from router.constraints import Constraints
from router.errors import DeadlinePassed, Overloaded

_LOG = logging.getLogger(__name__)

# When to come again while a processor cannot keep up, and the least that a deadline can be.
_AGAIN_S = 1.0
_LEAST_MS = 0.001


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
        self, request: InferRequest, constraints: Constraints, most: int
    ) -> tuple[InferRequest, Constraints]:
        """`request` with the network's inputs, and what it demands of the time that is left.

        Args:
            constraints: what it demands, the operator's defaults included.
            most: how many may wait for it at once.

        Raises:
            InvalidRequest: an element is not what the processor reads, or sizes disagree.
            Overloaded: too many wait.
            DeadlinePassed: before the inputs were made.
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
        self._waiting += 1
        try:
            inputs = await aside.run(self._processed, request.inputs, give_up_s)
        finally:
            self._waiting -= 1
        if limit_ms is not None:
            now_s = time.monotonic()
            _check(now_s, give_up_s)
            left_ms = limit_ms - (now_s - request.received_s) * 1000
            constraints = replace(constraints, max_latency_ms=max(left_ms, _LEAST_MS))
        return replace(request, inputs=inputs), constraints

    def _processed(self, inputs: Mapping[str, Tensor], give_up_s: float) -> dict[str, Tensor]:
        _check(time.monotonic(), give_up_s)
        assert self._process is not None  # a variant is ready, so it was opened
        made = self._process(inputs[self.record.input])
        whole = {name: made[name] if name in made else inputs[name] for name in self.inputs}
        v2.check_sizes(whole, self._equal)
        return whole


def _check(now_s: float, give_up_s: float) -> None:
    if now_s > give_up_s:
        raise DeadlinePassed("the deadline passed before the inputs were processed")
