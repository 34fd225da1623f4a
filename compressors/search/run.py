"""The search itself: does what `choose` says, writes down what comes of it, builds what is found.

Everything is scored on the validation split. The test split is asked once, at the end, by the
build of the recipes that were found.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from compressors import lowering, measure, recipe, report, training, trials
from compressors.artifact import Workspace
from compressors.asked import Asked, Options
from compressors.build import Outcome, build
from compressors.draft import draft_card
from compressors.errors import BuildError, TaskError
from compressors.measure import Scores
from compressors.networks import Made
from compressors.progress import Advance, Reporter
from compressors.recipe import RecipeBook
from compressors.search import choose
from compressors.search.choose import Action, Evaluate, Finish, Limits, Measure
from compressors.search.record import Evaluated, Finding, Journal, Measured, Record, Rejected
from compressors.search.space import ARITHMETIC, FAMILIES, REFERENCE, Candidate, Shape
from compressors.task import Array
from compressors.usertask import Guarded
from gateway import engines, evidence
from gateway.engines import EngineError
from router.card import LatencyPoint

Objective = Literal["latency", "cost", "size"]

JOURNAL_FILE, RECIPES_FILE = "search.jsonl", "search.toml"
SOURCE = "the recipes that the search found"


@dataclass(frozen=True)
class Result:
    """What a search came to: everything it found, why it ended, and what was built."""

    record: Record
    end: Finish
    outcomes: Sequence[Outcome]


def search(
    task: Guarded,
    objective: Objective,
    limits: Limits,
    options: Options,
    reporter: Reporter,
) -> Result:
    """Search, or go on with the search that the store's journal tells of, and build the frontier.

    Raises:
        BuildError: the task is at fault, the reference cannot be run, or the store or the journal
            cannot be used.
    """
    with Workspace(options.store / task.name) as workspace:
        bench = _Bench(task, objective, options, workspace)
        with workspace.making(JOURNAL_FILE, lambda: reporter.say("another search is running")):
            journal = Journal(options.store / task.name / JOURNAL_FILE, bench.heading)
            end = _run(journal, limits, bench, reporter)
            found = choose.frontier(journal.record, limits)
            text = recipes_of([e.candidate for e in found])
            workspace.publish_file(RECIPES_FILE, text.encode())
    book = recipe.parse(text, SOURCE)
    outcomes = build(task, book, replace(options, replace=True), reporter)
    return Result(journal.record, end, outcomes)


def recipes_of(candidates: Sequence[Candidate]) -> str:
    """A recipe file of the reference and `candidates`, each under its name."""
    lines = ['reference = "fp32"', "", "[variants.fp32]", 'description = "as trained"']
    for candidate in candidates:
        if candidate == Candidate(REFERENCE, 0, "fp32"):
            continue
        steps = ",\n".join(f"    {_table(step)}" for step in candidate.steps)
        lines += ["", f'[variants."{candidate.name}"]', f"steps = [\n{steps},\n]"]
    return "\n".join(lines) + "\n"


def _table(step: dict[str, object]) -> str:
    # Strings, numbers and booleans are written in TOML as in JSON.
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in step.items()) + " }"


def _run(journal: Journal, limits: Limits, bench: _Bench, reporter: Reporter) -> Finish:
    while True:
        action = choose.next_action(journal.record, limits)
        if isinstance(action, Finish):
            reporter.say(action.reason)
            return action
        finding = bench.find(action, journal.record, reporter.stage(_title(action)))
        if isinstance(finding, Rejected) and finding.what == "fp32":
            raise BuildError(f"the reference cannot be run: {finding.reason}")
        journal.add(finding)
        reporter.say(_told(finding))


def _title(action: Action) -> str:
    if isinstance(action, Measure):
        return f"cost of {action.shape} in {action.arithmetic}, untrained"
    assert isinstance(action, Evaluate)
    how = "executed" if action.engine else f"trained for {action.candidate.epochs} epochs"
    return f"{action.candidate.name}, {how}"


def _told(finding: Finding) -> str:
    if isinstance(finding, Measured):
        return f"{finding.shape} in {finding.arithmetic} costs {finding.objective:.4g}"
    if isinstance(finding, Rejected):
        name = finding.what.name if isinstance(finding.what, Candidate) else finding.what
        return f"{name} is out: {finding.reason}"
    epochs = f" after {finding.candidate.epochs} epochs" if not finding.engine else ""
    return (
        f"{finding.candidate.name}{epochs}: drop {100 * finding.drop:.2f} points "
        f"[{100 * finding.drop_low:.2f}, {100 * finding.drop_high:.2f}], "
        f"costs {finding.objective:.4g}"
    )


class _Bench:
    """Where candidates are made and measured."""

    def __init__(
        self, task: Guarded, objective: Objective, options: Options, workspace: Workspace
    ) -> None:
        self._asked = Asked(task, self._book(()), options)
        self._task, self._objective, self._workspace = task, objective, workspace
        self._validation = self._asked.validation
        self._own: Scores | None = None
        self.heading = {
            "task": task.name,
            "weights": self._asked.parent_digest,
            "test data": self._asked.task_record.data_digest,
            "objective": objective,
            "engines": list(self._engines()),
            "machine": self._asked.machine.fingerprint,
            "seed": options.seed,
        }

    def find(self, action: Measure | Evaluate, record: Record, advance: Advance) -> Finding:
        """Do it. What fails for a reason that a person can read is a rejection."""
        begun = time.monotonic()
        try:
            if isinstance(action, Measure):
                objective, spread = self._cost(action.shape, action.arithmetic, advance)
                finding: Finding = Measured(action.shape, action.arithmetic, objective, spread, 0.0)
            elif action.engine:
                finding = self._executed(action.candidate, advance)
            else:
                finding = self._trained(action.candidate, record, advance)
        except TaskError:
            raise
        except (BuildError, EngineError) as error:
            finding = Rejected(_to_blame(action), str(error))
        return replace(finding, seconds=time.monotonic() - begun)

    def _cost(self, shape: Shape, arithmetic: str, advance: Advance) -> tuple[float, float]:
        """The objective of the untrained shape, and its spread."""
        if shape.family == "student":
            made = self._student(arithmetic, advance)
        else:
            made = self._made(Candidate(shape, 0, arithmetic), advance)
        found = []
        for name in self._engines():
            folder = self._workspace.scratch(f"search-{name}")
            target = lowering.get(name)
            interface = self._asked.interface
            try:
                with trials.threads_kept():
                    target.lower(made.network, interface, folder).close()
                    draft = draft_card(
                        name,
                        target.format(made.network, folder),
                        made.network.numerics.precision,
                        interface.inputs,
                        interface.outputs,
                    )
                    program = engines.get(name).load(folder, draft, threads=1, trusted=True)
                    points = measure.latency(program, self._validation, 1, advance)
                    program.close()
            except (BuildError, EngineError) as error:
                found.append((float("inf"), 0.0, str(error)))
                continue
            size = sum(path.stat().st_size for path in folder.iterdir())
            found.append((*self._objective_of(points, size), ""))
        objective, spread, why = min(found)
        if why:
            raise BuildError(why)
        return objective, spread

    def _trained(self, candidate: Candidate, record: Record, advance: Advance) -> Evaluated:
        made = self._made(candidate, advance)
        with trials.threads_kept():
            outputs = training.outputs_of(made.network.module, self._validation)
        named = {name: o.numpy() for name, o in zip(self._asked.task.outputs, outputs, strict=True)}
        scores = Scores(
            np.asarray(self._task.score(named, self._validation.targets), dtype=np.float64),
            self._reference().clusters,
        )
        known = record.measured(candidate.shape, "fp32")
        assert known is not None  # every shape is measured before it is trained
        return self._evaluated(candidate, False, scores, known.objective, known.spread)

    def _executed(self, candidate: Candidate, advance: Advance) -> Evaluated:
        made = self._made(candidate, advance)
        names = self._engines()
        folders = {name: self._workspace.scratch(f"search-{name}") for name in names}
        lowered, _ = trials.lower(
            names, made.network, self._asked.interface, self._asked.checked, folders, advance
        )
        tried = trials.measured(
            lowered, None, self._task, self._validation, self._asked.machine.cores, advance
        )
        best = tried[trials.choose(tried, lowered[0].engine)[0]]
        objective, spread = self._objective_of(best.record.latency, best.record.bytes_on_disk)
        return self._evaluated(candidate, True, best.scores, objective, spread)

    def _evaluated(
        self,
        candidate: Candidate,
        engine: bool,
        scores: Scores,
        objective: float,
        spread: float,
    ) -> Evaluated:
        reference = self._reference()
        gain, low, high, _ = evidence.paired_interval(
            scores.values, reference.values, reference.clusters
        )
        metric = float(scores.values.mean())
        return Evaluated(
            candidate, engine, metric, -gain, -high, -low, objective, spread, seconds=0.0
        )

    def _objective_of(self, points: Sequence[LatencyPoint], size: int) -> tuple[float, float]:
        if self._objective == "size":
            return float(size), 0.0
        if self._objective == "latency":
            return points[0].p50_ms, points[0].spread_ms
        best = min(points, key=lambda point: point.p50_ms / point.batch)
        share = report.DEFAULT_PRICE_PER_LANE_HOUR / 3600 * 1e3 / best.batch
        return best.p50_ms * share, best.spread_ms * share

    def _reference(self) -> Scores:
        """The reference network's own scores on validation: what every drop is from."""
        if self._own is None:
            with trials.threads_kept():
                outputs = training.outputs_of(self._asked.networks.reference, self._validation)
            named = {n: o.numpy() for n, o in zip(self._task.outputs, outputs, strict=True)}
            values: Array = np.asarray(self._task.score(named, self._validation.targets))
            clusters = self._validation.clusters
            groups = np.arange(len(self._validation)) if clusters is None else clusters
            self._own = Scores(values.astype(np.float64), groups)
        return self._own

    def _made(self, candidate: Candidate, advance: Advance) -> Made:
        book = self._book((candidate,))
        return self._asked.networks.of(book).get(candidate.name, advance)

    def _student(self, arithmetic: str, advance: Advance) -> Made:
        """The task's student before it has learnt anything, in `arithmetic`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._asked.options.seed)
            student = self._task.student()
        if student is None:
            raise BuildError("the task's student() is None")
        book = self._book((Candidate(REFERENCE, 0, arithmetic),))
        networks = self._asked.networks.of(book, student.eval())
        return networks.get(Candidate(REFERENCE, 0, arithmetic).name, advance)

    def _engines(self) -> tuple[str, ...]:
        return self._asked.engines(self._asked.book[self._asked.book.reference])

    @staticmethod
    def _book(candidates: Sequence[Candidate]) -> RecipeBook:
        return recipe.parse(recipes_of(candidates), SOURCE)


def _to_blame(action: Measure | Evaluate) -> Shape | Candidate | str:
    """What an action's failure rules out."""
    if isinstance(action, Measure):
        return action.shape
    reference = action.candidate.shape == REFERENCE
    return action.candidate.arithmetic if reference else action.candidate


def explored(record: Record) -> Iterator[str]:
    """How much was tried, in lines."""
    findings = record.findings
    yield f"{sum(isinstance(f, Measured) for f in findings)} shapes measured untrained"
    yield f"{sum(isinstance(f, Evaluated) and not f.engine for f in findings)} trainings"
    yield f"{sum(isinstance(f, Evaluated) and f.engine for f in findings)} recipes executed"


def families() -> tuple[str, ...]:
    """What is searched unless somebody says otherwise."""
    return tuple(name for name in FAMILIES if name != REFERENCE.family)


def arithmetics() -> tuple[str, ...]:
    """Besides fp32."""
    return tuple(name for name in ARITHMETIC if name != "fp32")
