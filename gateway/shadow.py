"""Shadows: variants that answer nobody, and what they would have answered.

A share of the requests is run on a shadow again, after its caller has been answered, and the two
answers are compared row by row. It must be felt by nobody: a shadow has a program and a thread of
its own, which gives way to every lane; a request is only picked while the lanes are idle, and only
run while they still are; and what is not done soon is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from gateway import gently, hosts
from gateway.builds import Build
from gateway.engines import EngineError, Program, Tensor
from gateway.fleet import Fleet
from gateway.messages import InferRequest
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.warmup import check_outputs, load_program
from router.card import TensorSpec

_LOG = logging.getLogger(__name__)

# Picked requests that wait for the lanes to be idle again; each keeps its tensors alive.
_MOST_WAITING = 32
_POLL_S = 0.005
# How far two numbers may differ that are to be the same, of their size; quantised networks that
# agree on every answer differ by more than rounding.
_TOLERANCE = 0.05


class _Picked(NamedTuple):
    """A request that was answered, with the answer, and the shadow to run it on."""

    request: InferRequest
    outputs: Mapping[str, Tensor]
    variant: str


class Shadows:
    """The shadows of a fleet. Everything but the running is on the event loop's thread.

    Args:
        idle: whether no request waits and no lane runs.
    """

    def __init__(
        self, fleet: Fleet, settings: Settings, metrics: Metrics, idle: Callable[[], bool]
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._metrics = metrics
        self._idle = idle
        self._host = hosts.open_one("thread", settings.lanes)
        self._picked: deque[_Picked] = deque()
        self._programs: dict[tuple[str, str], tuple[Build, Program | None]] = {}
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
        return sum(
            build.entry.card.resident_bytes for build, program in self._programs.values() if program
        )

    def tidy(self) -> None:
        """Free the programs of what is no shadow any more, or was replaced."""
        for (model, variant), (build, program) in list(self._programs.items()):
            served = self._fleet.everything().get(model)
            wanted = served is not None and variant in served.rollout.shadows
            if not wanted or served is None or served.builds.get(variant) is not build:
                del self._programs[model, variant]
                if program is not None:
                    asyncio.get_running_loop().run_in_executor(None, program.close)

    async def stop(self) -> None:
        """Run nothing any more, and free everything."""
        self._picked.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for _, program in self._programs.values():
            if program is not None:
                program.close()
        self._programs.clear()

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
            self._metrics.shadowed(model, picked.variant, outcome, agree, disagree)

    async def _compared(self, picked: _Picked) -> tuple[str, int, int]:
        """What became of one request, and of its rows how many agree and how many do not."""
        program = await self._program(picked.request.model, picked.variant)
        if program is None:
            return "skipped", 0, 0
        rows = picked.request.rows
        specs = self._fleet.held(picked.request.model).outputs
        outputs = await gently.run(program.infer, picked.request.inputs)
        check_outputs(outputs, specs, rows)
        alike = agreement(picked.outputs, outputs, specs, rows)
        return "compared", int(alike.sum()), int(rows - alike.sum())

    async def _program(self, model: str, variant: str) -> Program | None:
        served = self._fleet.everything().get(model)
        build = served.builds.get(variant) if served is not None else None
        if served is None or build is None or variant not in served.rollout.shadows:
            return None
        known = self._programs.get((model, variant))
        if known is not None and known[0] is build:
            return known[1]
        self._programs[model, variant] = build, None
        try:
            program = await gently.run(
                load_program,
                self._host,
                build.entry,
                threads=1,
                max_batch=1,
                trust=self._settings.trust_store,
                pause=gently.pause,
            )
        except Exception as error:
            build.why = str(error) if isinstance(error, EngineError) else repr(error)
            raise
        self._programs[model, variant] = build, program
        return program


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
