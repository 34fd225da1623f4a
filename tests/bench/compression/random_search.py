"""`make bench-search`: the search against random search, as a table.

Both look for the frontier of size against accuracy of a perceptron on 8x8 digits, really trained
and executed, and both have the same number of trials. Every training of the search is a trial,
short ones too, and so is every recipe that it executes, the reference's own included. Of random
search a trial is a whole recipe, drawn from the same space, trained for all epochs and executed;
what the network refuses is drawn again and not counted. Size is the objective because it has no
noise: what is compared is the choice of recipes, and the machine may be busy.

The hypervolume is the share of the rectangle, from nothing to the reference's size and to the drop
allowed, that a frontier beats: as chosen on validation, and the same recipes on the test split.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from compressors import usertask
from compressors.artifact import Workspace
from compressors.asked import Options
from compressors.search import choose, facts
from compressors.search.bench import Bench
from compressors.search.choose import Evaluate, Finish
from compressors.search.facts import Limits
from compressors.search.frontier import hypervolume
from compressors.search.record import Evaluated, Record
from compressors.search.space import FAMILIES, REFERENCE, Candidate, Shape
from tests.bench import pages

HERE = Path(__file__).parent
_PAGE = Path("docs/how-to/search.md")
_TASK, _SEEDS, _MOST = str(HERE / "tasks" / "digits_mlp.py"), 5, 100
MAX_DROP = 0.02
EPOCHS = 8
# What a perceptron has; int8-mixed keeps none of its three layers in float, and would be int8.
FAMILIES_THERE = ("prune-neurons", "low-rank", "student", "student-neurons")
ARITHMETICS = ("bf16", "int8")
FEWEST = 8  # trials at which the two are compared for the first time


def main() -> None:
    """Search both ways, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default=_TASK)
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    parser.add_argument("--most", type=int, default=_MOST, help="trials, at most")
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    wanted = parser.parse_args()
    ran = pages.here()
    console = Console(width=120)
    rows = []
    for seed in range(wanted.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(contest(wanted.task, seed, wanted.most, Path(folder)))
        console.print(f"seed {seed}: {told(rows[-1])}", highlight=False)
    console.print(table(rows))
    whole = (wanted.task, wanted.seeds, wanted.most) == (_TASK, _SEEDS, _MOST)
    text = f"{ran}\n\n{pages.of_rich(table(rows))}"
    pages.keep(wanted.docs, _PAGE, "make bench-search", text, whole=whole)


Row = dict[str, tuple[float, float]]
"""(the search's, random search's) figure by what it is of."""


def contest(spec: str, seed: int, most: int, folder: Path) -> Row:
    """Both searches with one seed, of training and of drawing."""
    task = usertask.load(spec)
    limits = Limits(MAX_DROP, math.inf, FAMILIES_THERE, ARITHMETICS, (1, EPOCHS))
    options = Options(folder / "models", engines=("openvino",), seed=seed, cache=folder / "cache")
    with Workspace(options.store / task.name) as workspace:
        bench = Bench(task, "size", options, workspace)
        ours = searched(bench, limits, most)
        drawn = at_random(bench, limits, ours, seed)
        base = facts.reference(ours)
        assert base is not None
        found: Row = {"trials": (float(trials(ours)), float(len(drawn)))}
        found["epochs trained"] = (
            float(sum(e.candidate.epochs for e in ours.evaluated() if not e.engine)),
            float(sum(e.candidate.epochs for e in drawn)),
        )
        count = FEWEST
        evaluated = list(ours.evaluated())
        while count < len(evaluated):
            found[f"validation, {count} trials"] = (
                volume([e for e in evaluated[:count] if e.engine], base),
                volume(drawn[:count], base),
            )
            count += 4
        fronts = facts.frontier(ours, limits), best(drawn)
        found["validation, all trials"] = (volume(fronts[0], base), volume(fronts[1], base))
        # The same bench, from here on with the test split in validation's place.
        bench._validation, bench._own = bench.asked.test, None
        again = [[tested(e, bench, base) for e in front] for front in fronts]
        found["test, all trials"] = (volume(again[0], base), volume(again[1], base))
    return found


def searched(bench: Bench, limits: Limits, most: int) -> Record:
    """The search's record, to its end or to so many trials."""
    record = Record()
    while trials(record) < most:
        action = choose.next_action(record, limits)
        if isinstance(action, Finish):
            break
        record += bench.find(action, record, lambda _done, _text: None)
    return record


def at_random(bench: Bench, limits: Limits, ours: Record, seed: int) -> list[Evaluated]:
    """As many recipes as the search had trials, drawn uniformly: family, strength, arithmetic."""
    random = np.random.default_rng(seed)
    found: list[Evaluated] = []
    while len(found) < trials(ours):
        family = str(random.choice(limits.families))
        strength = round(float(random.uniform(0.05, 0.95)), 3) if FAMILIES[family].strengths else 0
        arithmetic = str(random.choice(["fp32", *limits.arithmetics]))
        candidate = Candidate(Shape(family, strength), EPOCHS, arithmetic)
        finding = bench.find(Evaluate(candidate, engine=True), ours, lambda _done, _text: None)
        if isinstance(finding, Evaluated):
            found.append(finding)
    return found


def tested(e: Evaluated, bench: Bench, base: Evaluated) -> Evaluated:
    """The same recipe on the test split."""
    if e.candidate.shape == REFERENCE and e.candidate.arithmetic == "fp32":
        return base
    again = bench.find(Evaluate(e.candidate, engine=True), Record(), lambda _done, _text: None)
    assert isinstance(again, Evaluated)
    return again


def trials(record: Record) -> int:
    return sum(1 for _ in record.evaluated())


def best(drawn: Sequence[Evaluated]) -> list[Evaluated]:
    """What of it adds to the hypervolume: smallest first, each with less drop than those before."""
    found: list[Evaluated] = []
    for e in sorted(drawn, key=lambda e: (e.objective, e.drop)):
        if e.drop <= MAX_DROP and all(e.drop < other.drop for other in found):
            found.append(e)
    return found


def volume(found: Sequence[Evaluated], base: Evaluated) -> float:
    points = [e.point for e in found if e.drop <= MAX_DROP]
    return hypervolume(points, base.objective, MAX_DROP * 1.01)


def told(row: Row) -> str:
    return "; ".join(f"{what} {ours:.3g} / {other:.3g}" for what, (ours, other) in row.items())


def table(rows: Sequence[Row]) -> Table:
    """Means over seeds, with the 95 % interval of the mean difference."""
    view = Table(
        title=f"hypervolume after as many trials: {len(rows)} seeds, drop up to "
        f"{100 * MAX_DROP:g} points",
        title_justify="left",
    )
    for heading in ("", "search", "random", "difference", "seeds won"):
        view.add_column(heading, justify="left" if not heading else "right")
    for what in rows[0]:
        pairs = np.array([row[what] for row in rows if what in row])
        means, gaps = pairs.mean(axis=0), pairs[:, 0] - pairs[:, 1]
        half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / math.sqrt(len(gaps)) if (
            len(gaps) > 1
        ) else math.nan  # fmt: skip
        view.add_row(
            what,
            *(f"{mean:.3f}" for mean in means),
            f"{gaps.mean():+.3f} ± {half:.3f}",
            f"{int((gaps > 0).sum())} of {len(gaps)}",
        )
    return view


if __name__ == "__main__":
    main()
