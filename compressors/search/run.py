"""The search itself: does what `choose` says, writes down what comes of it, builds what is found.

Everything is scored on the validation split. The test split is asked once, at the end, by the
build of the recipes that were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compressors.artifact import Workspace
from compressors.asked import Options
from compressors.build import Outcome, build
from compressors.errors import BuildError, StoreError
from compressors.progress import Reporter
from compressors.search import choose, facts, offer
from compressors.search.bench import Bench, Objective
from compressors.search.choose import Action, Evaluate, Finish, Measure
from compressors.search.facts import Limits
from compressors.search.record import Evaluated, Finding, Journal, Measured, Record, Rejected
from compressors.search.space import ARITHMETIC, FAMILIES, REFERENCE, Candidate
from compressors.usertask import Guarded

JOURNAL_FILE = "search.jsonl"
WAITING = "another search of this task is running in this store; waiting for its end"


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
    home = options.store / task.name
    with Workspace(home) as workspace:
        bench = Bench(task, objective, options, workspace)
        offer.check_reference(bench.asked)
        with workspace.making(JOURNAL_FILE, lambda: reporter.say(WAITING)):
            journal = Journal(home / JOURNAL_FILE, bench.heading)
            end = _run(journal, limits, bench, reporter)
            found = facts.frontier(journal.record, limits)
            named = offer.names((e.candidate for e in found), bench.asked)
            outcomes = build(task, offer.book_of(named), replace(options, replace=True), reporter)
            for name in offer.withdraw(_text(home / offer.FILE), named, home):
                reporter.say(f"{name} is withdrawn: the earlier search found it, it is beaten now")
            # Last: until then, what the earlier search offered is known by its own file.
            workspace.publish_file(offer.FILE, offer.text_of(named).encode())
    return Result(journal.record, end, outcomes)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error


def _run(journal: Journal, limits: Limits, bench: Bench, reporter: Reporter) -> Finish:
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
        lost = "" if finding.drop is None else f", loses {100 * finding.drop:.1f} points untrained"
        return f"{finding.shape} in {finding.arithmetic} costs {finding.objective:.4g}{lost}"
    if isinstance(finding, Rejected):
        name = finding.what.name if isinstance(finding.what, Candidate) else finding.what
        return f"{name} is out: {finding.reason}"
    epochs = f" after {finding.candidate.epochs} epochs" if not finding.engine else ""
    return (
        f"{finding.candidate.name}{epochs}: drop {100 * finding.drop:.2f} points "
        f"[{100 * finding.drop_low:.2f}, {100 * finding.drop_high:.2f}], "
        f"costs {finding.objective:.4g}"
    )


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
