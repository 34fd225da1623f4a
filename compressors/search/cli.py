"""`gearshift search`: find the recipes that fill a task's frontier, within a budget of time."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

from compressors import usertask
from compressors.asked import Options
from compressors.cache import default_folder
from compressors.commands import compress
from compressors.errors import BuildError, RecipeError
from compressors.pictures.figures import DEFAULT_PRICE_PER_LANE_HOUR
from compressors.progress import reporter
from compressors.sample import write_sample
from compressors.search import facts, run
from compressors.search.bench import Objective
from compressors.search.facts import Limits
from compressors.search.run import Result
from compressors.search.space import FAMILIES, REFERENCE

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def search(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="A bundled task (digits), a Python file (task.py, or task.py:Class), or "
            "package.module:Class.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="MODELS", help="The store to write variants to.")
    ],
    max_drop: Annotated[
        str,
        typer.Option(
            "--max-drop",
            metavar="DROP",
            help="The most that the metric may fall: 0.5% or 0.005 for half a point.",
        ),
    ] = "0.5%",
    budget: Annotated[
        str,
        typer.Option("--budget", metavar="TIME", help="Time for everything: 90s, 20m, 2h."),
    ] = "20m",
    objective: Annotated[
        str, typer.Option("--objective", help="What to make small: latency, cost or size.")
    ] = "latency",
    families: Annotated[
        str | None,
        typer.Option("--families", metavar="F1,F2", help="What to try; everything by default."),
    ] = None,
    epochs: Annotated[
        str, typer.Option("--epochs", metavar="E1,E2", help="Of each round of training, rising.")
    ] = "1,8",
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="E1,E2", help="Lower to these engines, default first."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of every random choice.")] = 0,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Where trained networks are kept."),
    ] = None,
) -> None:
    """Search for the recipes that fill the frontier of accuracy against latency, cost or size.

    What each change of the network costs to run is measured first, untrained, because it does not
    depend on the weights; what cannot pay is never trained. The rest is trained a little, the
    promising ones more, and executed in every arithmetic that may help. All of it is scored on the
    validation split. At the end the recipes that no other beats, and that keep --max-drop, are
    built into MODELS and measured on test, once; they are also in MODELS/<model>/search.toml.

    Every finding is written down at once, in MODELS/<model>/search.jsonl. Run the command again
    after it was killed and it goes on; with a larger budget or another --max-drop it starts from
    all that is known. The budget counts everything in the record.

    Exit code: 0; 1 when a recipe that was found cannot be built; 2 for a task or an option that
    makes no sense.
    """
    errors = Console(file=sys.stderr)
    try:
        limits = Limits(
            drop_of(max_drop),
            seconds_of(budget),
            _families(families),
            run.arithmetics(),
            _epochs(epochs),
        )
        if objective not in get_args(Objective):
            raise RecipeError(
                f"--objective: expected {', '.join(get_args(Objective))}, got {objective!r}"
            )
        options = Options(
            out, engines=compress.engine_names(engine), seed=seed, cache=cache or default_folder()
        )
        loaded = usertask.load(task)
    except BuildError as error:
        compress.fail(errors, str(error), 2)
    try:
        with reporter(errors) as live:
            result = run.search(loaded, cast(Objective, objective), limits, options, live)
    except BuildError as error:
        compress.fail(errors, str(error), 1)
    except KeyboardInterrupt:
        compress.interrupted(errors, f"say the same again to go on: {out / loaded.name}")
    _show(result, limits, errors)
    try:
        compress.show(list(result.outcomes), out / loaded.name, DEFAULT_PRICE_PER_LANE_HOUR)
        write_sample(loaded, out / loaded.name)
    except BuildError as error:
        compress.fail(errors, str(error), 1)
    if any(outcome.state == "failed" for outcome in result.outcomes):
        raise typer.Exit(1)


def drop_of(text: str) -> float:
    """A share: "0.5%" and "0.005" are the same.

    Raises:
        RecipeError: it is neither, or not between 0 and 1.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= share < 1:
        raise RecipeError(f"--max-drop: expected a share such as 0.5% or 0.005, got {text!r}")
    return share


def seconds_of(text: str) -> float:
    """Seconds: "90", "90s", "20m", "2h".

    Raises:
        RecipeError: it is none of these, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise RecipeError(f"--budget: expected a time such as 90s, 20m or 2h, got {text!r}")
    return seconds


def _families(text: str | None) -> tuple[str, ...]:
    there = run.families()
    if text is None:
        return there
    wanted = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in wanted if name not in FAMILIES or name == REFERENCE.family]
    if unknown or not wanted:
        raise RecipeError(
            f"--families: expected some of {', '.join(there)}, got {', '.join(unknown) or text!r}"
        )
    return wanted


def _epochs(text: str) -> tuple[int, ...]:
    found = [part.strip() for part in text.split(",")]
    rungs = tuple(int(part) for part in found if part.isdecimal())
    if len(rungs) != len(found) or list(rungs) != sorted(set(rungs)) or rungs[0] < 1:
        raise RecipeError(f"--epochs: expected rising numbers such as 1,3,8, got {text!r}")
    return rungs


def _show(result: Result, limits: Limits, errors: Console) -> None:
    """Why things were left alone; then the baseline, how much was tried, and the best."""
    rejected = Table(title="Not pursued", title_justify="left", show_header=False)
    for what, why in dict.fromkeys(facts.rejections(result.record, limits)):
        rejected.add_row(what, why)
    console = Console(width=None if sys.stdout.isatty() else 200)
    if rejected.row_count:
        console.print(rejected)
    base = facts.reference(result.record)
    found = facts.frontier(result.record, limits)
    if base is None or not found:
        errors.print(f"nothing was found: {result.end.reason}", markup=False)
        return
    best = found[0]
    drop = f"{100 * best.drop:.2f} [{100 * best.drop_low:.2f}, {100 * best.drop_high:.2f}]"
    lines = (
        f"baseline: fp32, {base.metric:.4f} on validation, costs {base.objective:.4g}",
        f"tried: {', '.join(run.explored(result.record))}, in {result.record.seconds:.0f} s",
        f"best: {best.candidate.name}, {base.objective / best.objective:.2f} times as good, "
        f"drop {drop} points on validation",
        f"ended: {result.end.reason}",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
