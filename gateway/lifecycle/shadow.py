"""Shadows: variants that answer nobody, and what they would have answered.

A share of the requests is run on a shadow again, after its caller has been answered, and the two
answers are compared row by row. It must be felt by nobody: a shadow has a program and a thread of
its own, which gives way to every lane; a request is only picked while the lanes are idle, and only
run while they still are; and what is not done soon is let go.

It lives where lanes live, by `lane_kind`, but apart from them: with processes each shadow has one
of its own. One whose process ends, or that does not come back, is loaded anew for the next request;
the third time it is given up, until there is another build of it or it is enabled between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from gateway import hosts
from gateway.engines import EngineError, Program, Tensor
from gateway.hosts import Host, LaneLost
from gateway.lifecycle import gently
from gateway.lifecycle.builds import Build
from gateway.lifecycle.fleet import Fleet
from gateway.lifecycle.warmup import check_outputs, load_program
from gateway.messages import InferRequest
from gateway.metrics import Metrics
from gateway.settings import Settings
from router.card import TensorSpec

_LOG = logging.getLogger(__name__)

# Picked requests that wait for the lanes to be idle again; each keeps its tensors alive.
_MOST_WAITING = 32
_POLL_S = 0.005
# How far two numbers may differ that are to be the same, of their size; quantised networks that
# agree on every answer differ by more than rounding.
_TOLERANCE = 0.05
# What loads for longer hangs.
_LOADING_S = 120.0
# How often one build is lost before it is given up. In this process each time may leave a thread.
_MOST_LOSSES = 3

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Picked(NamedTuple):
    """A request that was answered, with the answer, and the shadow to run it on."""

    request: InferRequest
    outputs: Mapping[str, Tensor]
    variant: str


class _Lost(EngineError):
    """A shadow did not come back, or its process ended."""


@dataclass(slots=True, eq=False)
class _Shadow:
    """One build that is a shadow.

    Attributes:
        host, program: None where it is not loaded.
        losses: how often it was lost.
        given_up: whether it is not loaded again.
    """

    build: Build
    host: Host | None = None
    program: Program | None = None
    losses: int = 0
    given_up: bool = False

    @property
    def bytes(self) -> int:
        """What it takes while it is loaded, by its card: one program."""
        return self.build.entry.card.resident_bytes

    def let_go(self, *, busy: bool) -> Callable[[], None]:
        """It is not loaded any more; what frees it, which blocks.

        Args:
            busy: whether its program is in a call, and so cannot be closed.
        """
        program, host = None if busy else self.program, self.host
        self.program = self.host = None

        def free() -> None:
            if program is not None:
                program.close()
            if host is not None:
                host.close()

        return free


class Shadows:
    """The shadows of a fleet. Everything but the running is on the event loop's thread.

    Args:
        idle: whether no request waits and no lane runs.
        room: whether the memory limit has room for shadows that take so many bytes.
    """

    def __init__(
        self,
        fleet: Fleet,
        settings: Settings,
        metrics: Metrics,
        idle: Callable[[], bool],
        room: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._metrics = metrics
        self._idle = idle
        self._room = room
        self._picked: deque[_Picked] = deque()
        self._shadows: dict[tuple[str, str], _Shadow] = {}
        self._running: _Shadow | None = None
        self._task: asyncio.Task[None] | None = None

    def answered(self, request: InferRequest, outputs: Mapping[str, Tensor]) -> None:
        """A request of a model that has shadows was answered with `outputs`."""
        for variant, share in self._fleet.held(request.model).rollout.shadows.items():
            if random.random() >= share:
                continue
            if len(self._picked) >= _MOST_WAITING:
                self._metrics.shadowed(request.model, variant, "skipped", 0, 0)
                continue
            self._picked.append(_Picked(request, outputs, variant))
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())

    def loaded_bytes(self) -> int:
        """Memory that shadows take, by their cards."""
        return sum(shadow.bytes for shadow in self._shadows.values() if shadow.host is not None)

    def tidy(self) -> None:
        """Free the programs of what is no shadow any more, or was replaced."""
        for (model, variant), shadow in list(self._shadows.items()):
            if shadow is not self._running and self._wanted(model, variant) is not shadow.build:
                del self._shadows[model, variant]
                shadow.build.why = ""
                self._apart(shadow.let_go(busy=False))

    async def stop(self) -> None:
        """Run nothing any more, and free everything."""
        self._picked.clear()
        busy = self._running
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        shadows = [*self._shadows.values()]
        self._shadows.clear()
        for shadow in shadows:
            await gently.apart(shadow.let_go(busy=shadow is busy))

    async def _run(self) -> None:
        while self._picked:
            while not self._idle():
                await asyncio.sleep(_POLL_S)
            picked = self._picked.popleft()
            model = picked.request.model
            try:
                outcome, agree, disagree = await self._compared(picked)
            except Exception as error:
                expected = isinstance(error, EngineError)
                _LOG.error("shadow %s/%s: %s", model, picked.variant, error, exc_info=not expected)
                outcome, agree, disagree = "failed", 0, 0
                if isinstance(error, _Lost):
                    outcome = "lost"
            self._metrics.shadowed(model, picked.variant, outcome, agree, disagree)
            self.tidy()

    async def _compared(self, picked: _Picked) -> tuple[str, int, int]:
        """What became of one request, and of its rows how many agree and how many do not."""
        model, variant, rows = picked.request.model, picked.variant, picked.request.rows
        shadow = self._shadow(model, variant)
        if shadow is None or shadow.given_up:
            return "skipped", 0, 0
        self._running = shadow
        try:
            program = shadow.program
            if program is None:
                if not self._room(self.loaded_bytes() + shadow.bytes):
                    return "skipped", 0, 0
                program = await self._load(shadow)
            batches = math.ceil(rows / self._settings.max_batch)
            limit_s = self._settings.batch_timeout_seconds * batches
            outputs = await self._within(limit_s, shadow, program.infer, picked.request.inputs)
        finally:
            self._running = None
        specs = self._fleet.held(model).outputs
        check_outputs(outputs, specs, rows)
        alike = agreement(picked.outputs, outputs, specs, rows)
        return "compared", int(alike.sum()), int(rows - alike.sum())

    def _wanted(self, model: str, variant: str) -> Build | None:
        """The build of a shadow; None where that variant is none."""
        served = self._fleet.everything().get(model)
        if served is None or variant not in served.rollout.shadows:
            return None
        return served.builds.get(variant)

    def _shadow(self, model: str, variant: str) -> _Shadow | None:
        build = self._wanted(model, variant)
        if build is None:
            return None
        known = self._shadows.get((model, variant))
        if known is None or known.build is not build:
            if known is not None:
                self._apart(known.let_go(busy=False))
            known = self._shadows[model, variant] = _Shadow(build)
        return known

    async def _load(self, shadow: _Shadow) -> Program:
        """Load and warm it. One that cannot be loaded is given up."""
        try:
            program = await self._within(_LOADING_S, shadow, self._loaded, shadow)
        except Exception as error:
            shadow.given_up = True
            shadow.build.why = str(error) if isinstance(error, EngineError) else repr(error)
            self._apart(shadow.let_go(busy=False))
            raise
        shadow.program = program
        shadow.build.why = ""
        return program

    def _loaded(self, shadow: _Shadow) -> Program:
        settings = self._settings
        shadow.host = host = hosts.open_one(settings.lane_kind, settings.lanes)
        return load_program(
            host,
            shadow.build.entry,
            threads=1,
            max_batch=1,
            trust=settings.trust_store,
            pause=gently.pause,
        )

    async def _within(
        self,
        limit_s: float,
        shadow: _Shadow,
        work: Callable[_P, _T],
        *args: _P.args,
        **more: _P.kwargs,
    ) -> _T:
        """What `work` returns, on a thread that gives way.

        Raises:
            _Lost: it takes too long, or the shadow's process ended.
        """
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await gently.run(work, *args, **more)
        except TimeoutError:
            if not limit.expired():
                raise
            why = f"it did not come back within {limit_s:g} s"
        except LaneLost as error:
            why = str(error)
        shadow.losses += 1
        shadow.given_up = shadow.losses >= _MOST_LOSSES
        shadow.build.why = f"{why}; given up" if shadow.given_up else f"{why}; it is loaded anew"
        # Its process ends by that; a thread that hangs in this one is left behind.
        self._apart(shadow.let_go(busy=True))
        raise _Lost(shadow.build.why)

    @staticmethod
    def _apart(free: Callable[[], None]) -> None:
        asyncio.get_running_loop().run_in_executor(None, free)


def agreement(
    one: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    specs: tuple[TensorSpec, ...],
    rows: int,
) -> Tensor:
    """Which rows two answers agree on, (rows,), as booleans.

    Scores agree where the highest is the same one; whole numbers and text where they are equal;
    other numbers where they differ by little.
    """
    alike = np.ones(rows, np.bool_)
    for spec in specs:
        a, b = one[spec.name].reshape(rows, -1), other[spec.name].reshape(rows, -1)
        if a.shape != b.shape:
            return np.zeros(rows, np.bool_)
        if spec.datatype not in ("FP16", "BF16", "FP32", "FP64"):
            alike &= (a == b).all(axis=1)
        elif len(spec.shape) == 2 and a.shape[1] > 1:
            alike &= a.argmax(axis=1) == b.argmax(axis=1)
        else:
            x, y = a.astype(np.float64), b.astype(np.float64)
            close = np.isclose(x, y, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
            alike &= close.all(axis=1)
    return alike
