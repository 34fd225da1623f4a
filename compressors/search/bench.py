"""Where a search's candidates are made, timed and scored: on the validation split alone.

Whatever is timed takes turns with the reference's own program, the yardstick, and its time is
scaled by what the yardstick takes now against what it took when the search began. So a candidate
that was timed while the machine was busy, or after the search was resumed on another day, is
compared with the others as if all of them had been timed together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from compressors import lowering, measure, report, training
from compressors.artifact import Workspace
from compressors.asked import Asked, Options
from compressors.errors import BuildError, NothingChanged, TaskError
from compressors.export import first_line
from compressors.lowered import Lowered, draft_of, lower
from compressors.measure import Scores
from compressors.networks import Made
from compressors.progress import Advance, within
from compressors.search.choose import Evaluate, Measure
from compressors.search.offer import book_of
from compressors.search.record import Evaluated, Finding, Measured, Record, Rejected
from compressors.search.space import FAMILIES, REFERENCE, Candidate, Shape
from compressors.task import Array
from compressors.technique import Network
from compressors.threads import threads_kept
from compressors.trials import MOST_LOST
from compressors.usertask import Guarded
from gateway import engines, evidence
from gateway.engines import EngineError, Program
from router.card import LatencyPoint

Objective = Literal["latency", "cost", "size"]

_YARDSTICK = "yardstick"
# The batch sizes that are timed: a row's share of a batch hardly falls any more beyond these.
_BATCHES: dict[Objective, tuple[int, ...]] = {"latency": (1,), "cost": (8, 32), "size": ()}
_DRIFT = 0.03  # of a median, from one run to the next, yardstick or not
_USD_PER_MILLION = report.DEFAULT_PRICE_PER_LANE_HOUR / 3600 * 1e3
"""Of a million rows that take a millisecond each."""


class Bench:
    """Finds out what a search wants to know.

    Raises:
        TaskError: the task is at fault.
        StoreError: the cache cannot be used.
    """

    def __init__(
        self, task: Guarded, objective: Objective, options: Options, workspace: Workspace
    ) -> None:
        self.asked = Asked(task, book_of({}), options)
        self._task, self._objective, self._workspace = task, objective, workspace
        self._validation = self.asked.validation
        self._own: Scores | None = None
        self._rule: Lowered | None = None
        self.heading = {
            "task": task.name,
            "weights": self.asked.parent_digest,
            "definition": self.asked.task_record.definition_digest,
            "objective": objective,
            "engines": list(self._engines()),
            "machine": self.asked.machine.fingerprint,
            "seed": options.seed,
        }

    def find(self, action: Measure | Evaluate, record: Record, advance: Advance) -> Finding:
        """Do it. What fails for a reason that a person can read is a rejection."""
        begun = time.monotonic()
        try:
            if isinstance(action, Measure):
                finding: Finding = self._measured(action, record, advance)
            elif action.engine:
                finding = self._executed(action.candidate, record, advance)
            else:
                finding = self._trained(action.candidate, record, advance)
        except TaskError:
            raise
        except (BuildError, EngineError) as error:
            finding = Rejected(_to_blame(action), str(error))
        return replace(finding, seconds=time.monotonic() - begun)

    def _measured(self, action: Measure, record: Record, advance: Advance) -> Measured:
        made = self._untrained(action.shape, action.arithmetic, within(advance, 0, 0.3))
        module = made.network.module
        drop = None
        if not FAMILIES[action.shape.family].student:
            drop = float(self._reference().values.mean() - self._scored(made).values.mean())
        objective, spread = self._cost(made.network, record, within(advance, 0.3, 1))
        parameters = sum(each.numel() for each in module.parameters())
        return Measured(action.shape, action.arithmetic, objective, spread, 0.0, parameters, drop)

    def _cost(self, network: Network, record: Record, advance: Advance) -> tuple[float, float]:
        """The objective of an untrained network on the best engine, and its spread. Nothing that
        it computes is checked: that is left for when it is trained."""
        programs: dict[str, Program] = {}
        sizes: dict[str, int] = {}
        failed: BuildError | EngineError | None = None
        interface = self.asked.interface
        with threads_kept():
            for name in self._engines():
                folder = self._workspace.scratch(f"search-{name}")
                try:
                    lowering.get(name).lower(network, interface, folder).close()
                    draft = draft_of(name, network, interface, folder)
                    programs[name] = engines.get(name).load(folder, draft, threads=1, trusted=True)
                except (BuildError, EngineError) as error:
                    failed = failed or error
                    continue
                except Exception as error:  # an exporter's own: there is no common base
                    failed = failed or BuildError(f"cannot be lowered: {first_line(error)}")
                    continue
                sizes[name] = sum(path.stat().st_size for path in folder.iterdir())
        if failed and not programs:
            raise failed
        return min(self._objectives(programs, sizes, record, advance)[0].values())

    def _executed(self, candidate: Candidate, record: Record, advance: Advance) -> Evaluated:
        made = self._made(candidate, within(advance, 0, 0.4))
        if candidate.arithmetic == "int8-mixed" and not made.network.numerics.floats:
            raise NothingChanged("no layer had to stay in float, so that it would be int8")
        names = self._engines()
        folders = {name: self._workspace.scratch(f"search-{name}") for name in names}
        lowered, _ = lower(
            names, made.network, self.asked.interface, self.asked.checked, folders,
            within(advance, 0.4, 0.6),
        )  # fmt: skip
        scores = {each.engine: self._scored_by(each, within(advance, 0.6, 0.7)) for each in lowered}
        with threads_kept():
            programs = {each.engine: each.load(1) for each in lowered}
        sizes = {each.engine: each.bytes_on_disk for each in lowered}
        found, yardstick = self._objectives(programs, sizes, record, within(advance, 0.7, 1))
        best = lowered[0].engine
        for name, (objective, spread) in found.items():
            faster = found[best][0] - objective > max(spread, found[best][1])
            lost = scores[lowered[0].engine].values.mean() - scores[name].values.mean()
            if faster and lost <= MOST_LOST:
                best = name
        return self._evaluated(candidate, True, scores[best], *found[best], yardstick)

    def _trained(self, candidate: Candidate, record: Record, advance: Advance) -> Evaluated:
        scores = self._scored(self._made(candidate, advance))
        known = record.measured(candidate.shape, "fp32")
        assert known is not None  # every shape is measured before it is trained
        return self._evaluated(candidate, False, scores, known.objective, known.spread)

    def _evaluated(
        self,
        candidate: Candidate,
        engine: bool,
        scores: Scores,
        objective: float,
        spread: float,
        yardstick: float = 0.0,
    ) -> Evaluated:
        reference = self._reference()
        gain, low, high, _ = evidence.paired_interval(
            scores.values, reference.values, reference.clusters
        )
        metric = float(scores.values.mean())
        # Zero minus the gain: a drop of nothing is 0, not -0.
        return Evaluated(
            candidate,
            engine,
            metric,
            0 - gain,
            0 - high,
            0 - low,
            objective,
            spread,
            0.0,
            yardstick,
        )

    def _objectives(
        self,
        programs: Mapping[str, Program],
        sizes: Mapping[str, int],
        record: Record,
        advance: Advance,
    ) -> tuple[dict[str, tuple[float, float]], float]:
        """Objective and spread of each, and what the yardstick took meanwhile. Closes them."""
        if self._objective == "size":
            found = {name: (float(size), 0.0) for name, size in sizes.items()}
            yardstick = 0.0
        else:
            with threads_kept():
                timed = {**programs, _YARDSTICK: self._yardstick().load(1)}
                points = measure.latencies(
                    timed, self._validation, 1, advance, _BATCHES[self._objective]
                )
                timed[_YARDSTICK].close()
            found = {name: self._objective_of(points[name]) for name in points}
            yardstick, _ = found.pop(_YARDSTICK)
            first = next((e.yardstick for e in record.evaluated() if e.yardstick), yardstick)
            scale = first / yardstick
            found = {
                name: (value * scale, spread * scale) for name, (value, spread) in found.items()
            }
        for program in programs.values():
            program.close()
        return found, yardstick

    def _objective_of(self, points: Sequence[LatencyPoint]) -> tuple[float, float]:
        unit = 1.0 if self._objective == "latency" else _USD_PER_MILLION
        best = min(points, key=lambda point: point.p50_ms / point.batch)
        # Twice the standard error of a median, 1.25 s / sqrt(n), and IQR = 1.35 s.
        sure = 2 * 1.25 / 1.35 * best.spread_ms / math.sqrt(best.runs)
        share = unit / best.batch
        return best.p50_ms * share, max(sure, _DRIFT * best.p50_ms) * share

    def _yardstick(self) -> Lowered:
        """The reference in fp32, on the first engine that takes it."""
        if self._rule is None:
            names = self._engines()
            folders = {name: self._workspace.scratch(f"yardstick-{name}") for name in names}
            lowered, _ = lower(
                names,
                Network(self.asked.networks.reference),
                self.asked.interface,
                self.asked.checked,
                folders,
                lambda _fraction, _text: None,
            )
            self._rule = lowered[0]
        return self._rule

    def _reference(self) -> Scores:
        """The reference network's own scores on validation: what every drop is from."""
        if self._own is None:
            self._own = self._scored(Made(Network(self.asked.networks.reference), 0.0))
        return self._own

    def _scored(self, made: Made) -> Scores:
        """Of the float network."""
        with threads_kept():
            outputs = training.outputs_of(made.network.module, self._validation)
        named = {n: o.numpy() for n, o in zip(self._task.outputs, outputs, strict=True)}
        values: Array = np.asarray(self._task.score(named, self._validation.targets))
        clusters = self._validation.clusters
        groups = np.arange(len(self._validation)) if clusters is None else clusters
        return Scores(values.astype(np.float64), groups)

    def _scored_by(self, lowered: Lowered, advance: Advance) -> Scores:
        with threads_kept():
            program = lowered.load(self.asked.machine.cores)
            try:
                return measure.scores(self._task, program, self._validation, advance)
            finally:
                program.close()

    def _made(self, candidate: Candidate, advance: Advance) -> Made:
        return self.asked.networks.of(book_of({candidate.name: candidate})).get(
            candidate.name, advance
        )

    def _untrained(self, shape: Shape, arithmetic: str, advance: Advance) -> Made:
        candidate = Candidate(shape, 0, arithmetic)
        if not FAMILIES[shape.family].student:
            return self._made(candidate, advance)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.asked.options.seed)
            student = self._task.student()
        if student is None:
            raise BuildError("the task's student() is None")
        if not candidate.steps:
            return Made(Network(student.eval()), 0.0)
        if not FAMILIES[shape.family].change(shape.strength):
            candidate = Candidate(REFERENCE, 0, arithmetic)  # the student in the reference's place
        networks = self.asked.networks.of(book_of({candidate.name: candidate}), student.eval())
        return networks.get(candidate.name, advance)

    def _engines(self) -> tuple[str, ...]:
        return self.asked.engines(self.asked.book[self.asked.book.reference])


def _to_blame(action: Measure | Evaluate) -> Shape | Candidate | str:
    """What an action's failure rules out."""
    if isinstance(action, Measure):
        return action.shape
    reference = action.candidate.shape == REFERENCE
    return action.candidate.arithmetic if reference else action.candidate
