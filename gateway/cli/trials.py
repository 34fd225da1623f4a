"""Many trials at a time: each in a process of its own, with the same results as one by one."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from typing import NamedTuple, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.processes.cores import usable_cores
from router.simulate import score, trial
from router.simulate.bound import Bound
from router.simulate.score import Score, Window
from router.simulate.trial import Case, Workload

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Job(NamedTuple):
    """One replay; with `windows`, also cut into that many stretches of time.

    Attributes:
        loaded: the variants that are loaded, as (model, variant); None for all.
    """

    case: Case
    policy: str
    windows: int = 0
    loaded: frozenset[tuple[str, str]] | None = None


class Done(NamedTuple):
    """What came of a job."""

    score: Score
    windows: tuple[Window, ...] = ()


# What is replayed, in a process of the pool: sent once, for it may hold a trace of millions.
_workload: Workload | None = None


class Pool:
    """Runs trials of one workload."""

    def __init__(self, workload: Workload, executor: ProcessPoolExecutor | None) -> None:
        self._workload = workload
        self._executor = executor

    def replays(self, jobs: Sequence[Job], progress: str = "") -> dict[Job, Done]:
        """What came of each job."""
        return dict(zip(jobs, self._map(_replay, jobs, progress), strict=True))

    def limits(self, cases: Sequence[Case]) -> dict[Case, Bound]:
        """What no policy could have exceeded in each case."""
        return dict(zip(cases, self._map(_limit, cases, ""), strict=True))

    def _map(
        self, function: Callable[[_In, Workload | None], _Out], items: Sequence[_In], progress: str
    ) -> list[_Out]:
        results: Iterator[_Out]
        if self._executor is None:
            results = (function(item, self._workload) for item in items)
        else:
            results = self._executor.map(function, items, repeat(None))
        return list(_told(results, len(items), progress))


@contextmanager
def pool(workload: Workload, jobs: int | None) -> Iterator[Pool]:
    """A pool of `jobs` processes, by default one for each usable core; none for one."""
    count = usable_cores() if jobs is None else jobs
    if count == 1:
        yield Pool(workload, None)
        return
    executor = ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(workload,)
    )
    try:
        yield Pool(workload, executor)
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(workload: Workload) -> None:
    global _workload
    _workload = workload
    # Ctrl-C goes to every process of the terminal; the one that has the pool ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _replay(job: Job, workload: Workload | None) -> Done:
    workload = workload or _workload
    assert workload is not None
    outcomes = trial.run(workload, job.case, job.policy, job.loaded)
    model_of = [workload.model_of(tenant) for tenant in workload.mix.tenants]
    windows: Sequence[Window] = ()
    if job.windows:
        windows = score.windows(outcomes, model_of, workload.menus, job.windows)
    return Done(score.score(outcomes, model_of, workload.menus), tuple(windows))


def _limit(case: Case, workload: Workload | None) -> Bound:
    workload = workload or _workload
    assert workload is not None
    return trial.limit(workload, case)


def _told(results: Iterator[_Out], total: int, progress: str) -> Iterator[_Out]:
    """`results`, with a bar on stderr where somebody looks at it."""
    if not progress or not sys.stderr.isatty():
        yield from results
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(progress, total=total)
        for result in results:
            bar.advance(task)
            yield result
