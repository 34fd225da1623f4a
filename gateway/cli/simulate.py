"""`gearshift simulate`: policies against traffic, without a server."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import picture
from gateway.cli.comparison import Run, line_of, result_of
from gateway.cli.comparison_view import as_json, print_results
from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail, print_json
from gateway.cli.policies import OURS, choose_policies
from gateway.cli.store import ConfigOption, JsonOption, load_settings
from gateway.cli.trials import Done, Job, pool
from gateway.cli.workload import build, warn_if_short
from gateway.cli.workload_options import (
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
)
from router.simulate import score, trial
from router.simulate.bound import Bound
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
    loads = _numbers(
        "--load", load, f"numbers above 0, at most {_MOST_LOAD:g}", lambda x: 0 < x <= _MOST_LOAD
    )
    operator = load_settings(config)
    counts = [operator.lanes]
    if lanes is not None:
        expected = f"whole numbers from 1 to {_MOST_LANES}"
        given = _numbers(
            "--lanes", lanes, expected, lambda n: n == int(n) and 1 <= n <= _MOST_LANES
        )
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
        Run(times, count, trial.capacity_per_s(workload, count) * times)
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
        line_of(workload, run, seed, name, done[Job(run.case(seed), name)].score, limits)
        for run in runs
        for seed in range(1, seeds + 1)
        for name in names
    ]
    if csv is not None:
        _write(csv, score.as_csv(lines).encode())
    if picture is not None:
        _write(picture, _picture(workload, runs, pictured, done, limits))
    warn_if_short(workload, max(run.rate_per_s for run in runs))
    results = [result_of(run, names, seeds, done, limits) for run in runs]
    if json:
        print_json(as_json(workload, results, lines))
    else:
        print_results(workload, seeds, results)


def _numbers(option: str, text: str, expected: str, fits: Callable[[float], bool]) -> list[float]:
    """The numbers of a list such as `0.5,1,1.5`; exit 2 when one does not fit."""
    found: list[float] = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and fits(value)):
            fail(f"{option}: expected {expected}, separated by commas, got {part!r}", BAD_VALUE)
        if value not in found:
            found.append(value)
    return found


def _need_picture(path: Path) -> None:
    if path.suffix.lower() != ".png":
        fail(f"--picture: expected a file that ends in .png, got {str(path)!r}", BAD_VALUE)
    if not picture.available():
        fail("--picture needs matplotlib: pip install 'gearshift[simulate]'")


def _picture(
    workload: Workload,
    runs: Sequence[Run],
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
