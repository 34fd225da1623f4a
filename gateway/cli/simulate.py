"""`gearshift simulate`: policies against traffic, without a server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from gateway.cli import picture
from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail, out, print_json
from gateway.cli.console import table as new_table
from gateway.cli.store import ConfigOption, JsonOption, load_settings
from gateway.cli.trials import Done, Job, pool
from gateway.cli.workload import (
    OURS,
    AccuracyOption,
    BatchOption,
    CostOption,
    FormatOption,
    JobsOption,
    LatencyOption,
    MarginOption,
    MixOption,
    ModelArgument,
    ModelsArgument,
    NoiseOption,
    OptimizeOption,
    Options,
    PriceOption,
    RequestsOption,
    SeedsOption,
    SlowOption,
    TraceOption,
    VariantsOption,
    build,
    choose_policies,
    numbers,
    rate,
    warn_if_short,
)
from router.simulate import score, trial
from router.simulate.bound import Bound
from router.simulate.score import Figure, Line, Score, over_seeds, share_of_gain
from router.simulate.trace import BadTrace
from router.simulate.trial import Case, Workload

_MOST_LOAD, _MOST_LANES = 1000.0, 1024
_OUTPUT = "What is written"
# Stretches of time in a picture: as many as can be told apart in a column of it.
_WINDOWS = 60


def simulate(
    models: ModelsArgument = None,
    model: ModelArgument = None,
    *,
    trace: TraceOption,
    trace_format: FormatOption = "auto",
    requests: RequestsOption = 20_000,
    load: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Multiples of what the lanes can answer by the variant in the middle.",
            rich_help_panel="What arrives",
        ),
    ] = "0.5,1,1.5,2",
    mix: MixOption = None,
    max_latency_ms: LatencyOption = None,
    min_accuracy: AccuracyOption = None,
    max_cost_usd_per_million: CostOption = None,
    optimize: OptimizeOption = None,
    variants: VariantsOption = None,
    lanes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Batches that run at once; by default as the server would choose.",
            rich_help_panel="What serves",
        ),
    ] = None,
    max_batch: BatchOption = None,
    noise: NoiseOption = "measured",
    slow_from_half: SlowOption = 1.0,
    usd_per_lane_hour: PriceOption = None,
    accuracy_margin: MarginOption = 0.0,
    policies: Annotated[
        str, typer.Option(metavar="all|LIST", help="Policies to compare, by name.")
    ] = "all",
    seeds: SeedsOption = 3,
    jobs: JobsOption = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A line for each replay, as CSV.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="One policy over time, at each load; needs matplotlib.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    picture_policy: Annotated[
        str,
        typer.Option(metavar="NAME", help="The policy in the picture.", rich_help_panel=_OUTPUT),
    ] = OURS,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Replay traffic against policies, and say how good each was and could have been.

    Every policy is given the same requests. The bound is what no policy could have exceeded that
    knew the future. Runs the server's own decisions on the times that the cards measured; see
    docs/how-to/simulate.md for the formats of traces, mixes and tables, and for every figure.

    Example: gearshift simulate models digits --trace gamma:cv=4 --load 0.5,1,2 --csv result.csv

    Exit code: 0; 3 when no variant can meet what a tenant demands; 2 for a value or a file that
    makes no sense; 1 when the store or the model is not usable, or a file cannot be written.
    """
    loads = numbers(
        "--load", load, f"numbers above 0, at most {_MOST_LOAD:g}", lambda x: 0 < x <= _MOST_LOAD
    )
    operator = load_settings(config)
    counts = [operator.lanes]
    if lanes is not None:
        expected = f"whole numbers from 1 to {_MOST_LANES}"
        given = numbers("--lanes", lanes, expected, lambda n: n == int(n) and 1 <= n <= _MOST_LANES)
        counts = list(map(int, given))
    workload = build(
        Options(
            models,
            model,
            variants,
            trace,
            trace_format,
            requests,
            mix,
            {
                "max_latency_ms": max_latency_ms,
                "min_accuracy": min_accuracy,
                "max_cost_usd_per_million": max_cost_usd_per_million,
                "optimize": optimize,
            },
            noise,
            usd_per_lane_hour,
            max_batch,
            slow_from_half,
            accuracy_margin,
        ),
        operator,
    )
    names = choose_policies(policies, workload)
    runs = [
        _Run(times, count, trial.capacity_per_s(workload, count) * times)
        for count in counts
        for times in loads
    ]
    drawn: list[str] = []
    if picture is not None:
        drawn = choose_policies(picture_policy, workload)
        if len(drawn) != 1:
            fail(f"--picture-policy: expected one policy, got {picture_policy!r}", BAD_VALUE)
        _need_picture(picture)
    for path in (csv, picture):
        if path is not None and not path.parent.is_dir():
            fail(f"{path}: cannot be written: there is no folder {path.parent}", STORE_PROBLEM)
    cases = [run.case(seed) for run in runs for seed in range(1, seeds + 1)]
    todo = [Job(case, name) for case in cases for name in names]
    pictured = [Job(run.case(1), name, _WINDOWS) for run in runs for name in drawn]
    try:
        for run in runs:
            trial.traffic(workload, run.case(1))
        with pool(workload, jobs) as workers:
            limits = workers.limits(cases)
            done = workers.replays([*todo, *pictured], "replaying")
    except BadTrace as error:
        fail(f"--trace: {error}", BAD_VALUE)
    lines = [
        _line(workload, run, seed, name, done[Job(run.case(seed), name)].score, limits)
        for run in runs
        for seed in range(1, seeds + 1)
        for name in names
    ]
    if csv is not None:
        _write(csv, score.as_csv(lines).encode())
    if picture is not None:
        _write(picture, _picture(workload, runs, pictured, done, limits))
    warn_if_short(workload, max(run.rate_per_s for run in runs))
    results = [_result(run, names, seeds, done, limits) for run in runs]
    if json:
        print_json(_as_json(workload, results, lines))
    else:
        _print(workload, seeds, results)


class _Run(NamedTuple):
    """A load on a number of lanes."""

    load: float
    lanes: int
    rate_per_s: float

    def case(self, seed: int) -> Case:
        return Case(self.rate_per_s, self.lanes, seed)


class _Row(NamedTuple):
    """A policy's figures over all seeds."""

    policy: str
    attainment: Figure
    accuracy_all: Figure
    accuracy_answered: Figure
    cost: Figure
    gained: Figure | None


class _Result(NamedTuple):
    run: _Run
    bound: Figure
    served: Figure
    best_alone: str
    rows: list[_Row]


def _line(
    workload: Workload,
    run: _Run,
    seed: int,
    policy: str,
    of: Score,
    limits: Mapping[Case, Bound],
) -> Line:
    return Line(
        trial.name_of(workload.arriving),
        run.load,
        run.lanes,
        seed,
        policy,
        of.attainment,
        of.effective_accuracy_all,
        of.effective_accuracy_answered,
        of.cost_usd_per_million,
        limits[run.case(seed)].worth,
    )


def _result(
    run: _Run,
    names: Sequence[str],
    seeds: int,
    done: Mapping[Job, Done],
    limits: Mapping[Case, Bound],
) -> _Result:
    cases = [run.case(seed) for seed in range(1, seeds + 1)]
    scores = {name: [done[Job(case, name)].score for case in cases] for name in names}
    worth = {name: [of.effective_accuracy_all for of in found] for name, found in scores.items()}
    bounds = [limits[case].worth for case in cases]
    alone = [name for name in names if name.startswith("static")]
    # The best in hindsight, of every draw anew: nobody knows beforehand which it will be.
    best = [max(worth[name][at] for name in alone) for at in range(seeds)] if alone else None
    rows = [
        _Row(
            name,
            over_seeds([of.attainment for of in found]),
            over_seeds(worth[name]),
            over_seeds([of.effective_accuracy_answered for of in found]),
            over_seeds([of.cost_usd_per_million for of in found]),
            None if best is None or name in alone else share_of_gain(worth[name], best, bounds),
        )
        for name, found in scores.items()
    ]
    rows.sort(key=lambda row: -row.accuracy_all.mean)
    return _Result(
        run,
        over_seeds(bounds),
        over_seeds([limits[case].served for case in cases]),
        next((row.policy for row in rows if row.policy in alone), ""),
        rows,
    )


def _print(workload: Workload, seeds: int, results: Sequence[_Result]) -> None:
    console = out()
    for name, menu in workload.menus.items():
        shown = ", ".join(f"{o.name} {100 * o.accuracy:.2f} %" for o in menu.offers)
        console.print(f"{name}: {shown}", soft_wrap=True)
    middles = ", ".join(
        (f"{name}: " if len(workload.menus) > 1 else "") + trial.middle(menu).name
        for name, menu in workload.menus.items()
    )
    for lanes in sorted({result.run.lanes for result in results}):
        capacity = rate(trial.capacity_per_s(workload, lanes))
        console.print(
            f"load 1 on {lanes} lane{'s' if lanes > 1 else ''} is {capacity} requests/s, what the "
            f"middle variant ({middles}) can answer at most",
            soft_wrap=True,
        )
    for result in results:
        run = result.run
        console.print()
        view = new_table(
            "policy", "in time %", "eff. accuracy %, of all", "of answered", "USD / M",
            "of the gain %",
            title=f"load {run.load:g} on {run.lanes} lane{'s' if run.lanes > 1 else ''}: "
            f"{rate(run.rate_per_s)} requests/s of {trial.name_of(workload.arriving)}",
        )  # fmt: skip
        view.add_row(
            "bound", _percent(result.served), _percent(result.bound, 3), "", "", "", style="dim"
        )
        for row in result.rows:
            view.add_row(
                row.policy,
                _percent(row.attainment),
                _percent(row.accuracy_all, 3),
                _percent(row.accuracy_answered, 3),
                "" if math.isnan(row.cost.mean) else f"{row.cost.mean:.3g}",
                _gained(row.gained),
                style="bold" if row.policy == OURS else None,
            )
        console.print(view)
    console.print(f"\n± is the 95 % interval over {seeds} draws. " if seeds > 1 else "\n", end="")
    console.print(
        "Of the gain: of what the bound has over the best single variant of each draw; empty where "
        f"that is less than {100 * score.LEAST_GAIN:g} points.",
        soft_wrap=True,
    )


def _gained(share: Figure | None) -> str:
    if share is None:
        return ""
    return _percent(share, 0) if share.mean > 0 else "below 0"


def _percent(figure: Figure, digits: int = 2) -> str:
    if math.isnan(figure.mean):
        return ""
    text = f"{100 * figure.mean:.{digits}f}"
    return text if math.isnan(figure.half) else f"{text} ±{100 * figure.half:.{digits}f}"


def _as_json(
    workload: Workload, results: Sequence[_Result], lines: Sequence[Line]
) -> dict[str, Any]:
    return {
        "trace": trial.name_of(workload.arriving),
        "models": {
            name: {
                "middle": trial.middle(menu).name,
                "variants": {offer.name: offer.accuracy for offer in menu.offers},
            }
            for name, menu in workload.menus.items()
        },
        "runs": [
            {
                "load": result.run.load,
                "lanes": result.run.lanes,
                "rate_per_s": result.run.rate_per_s,
                "bound": _figure(result.bound),
                "bound_attainment": _figure(result.served),
                "best_single_variant": result.best_alone or None,
                "policies": {
                    row.policy: {
                        "attainment": _figure(row.attainment),
                        "effective_accuracy_all": _figure(row.accuracy_all),
                        "effective_accuracy_answered": _figure(row.accuracy_answered),
                        "cost_usd_per_million": _figure(row.cost),
                        "share_of_gain": None if row.gained is None else _figure(row.gained),
                    }
                    for row in result.rows
                },
            }
            for result in results
        ],
        "replays": [
            {name: _plain(getattr(line, name)) for name in score.COLUMNS} for line in lines
        ],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {"mean": _plain(figure.mean), "half_interval": _plain(figure.half)}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _need_picture(path: Path) -> None:
    if path.suffix.lower() != ".png":
        fail(f"--picture: expected a file that ends in .png, got {str(path)!r}", BAD_VALUE)
    if not picture.available():
        fail("--picture needs matplotlib: pip install 'gearshift[simulate]'")


def _picture(
    workload: Workload,
    runs: Sequence[_Run],
    jobs: Sequence[Job],
    done: Mapping[Job, Done],
    limits: Mapping[Case, Bound],
) -> bytes:
    (policy,) = {job.policy for job in jobs}
    columns = [
        picture.Column(
            f"load {run.load:g}"
            + (f", {run.lanes} lanes" if len({r.lanes for r in runs}) > 1 else ""),
            done[job].windows,
            done[job].score,
            limits[job.case],
            trial.capacity_per_s(workload, run.lanes),
        )
        for run, job in zip(runs, jobs, strict=True)
    ]
    return picture.draw(workload, policy, columns)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        fail(f"{path}: cannot be written: {error.strerror}", STORE_PROBLEM)
