"""`gearshift plan`: how many lanes some traffic needs."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.console import BAD_VALUE, fail, print_json
from gateway.cli.enough import Target, check_reachable, search
from gateway.cli.enough_view import as_json, print_found
from gateway.cli.store import ConfigOption, JsonOption, load_settings
from gateway.cli.trials import pool
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
from router.simulate import trial
from router.simulate.trace import BadTrace
from router.simulate.trial import Case

_TARGETS = "What is to be reached"


def plan(
    models: ModelsArgument = None,
    model: ModelArgument = None,
    *,
    trace: TraceOption,
    trace_format: FormatOption = "auto",
    rate_per_s: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Mean rate of the requests; by default the trace's own.",
            rich_help_panel="What arrives",
        ),
    ] = None,
    requests: RequestsOption = 20_000,
    mix: MixOption = None,
    target_attainment: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of all requests that must be answered in time, in every draw.",
            rich_help_panel=_TARGETS,
        ),
    ] = 0.999,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Mean accuracy that answers must have.", rich_help_panel=_TARGETS
        ),
    ] = None,
    max_latency_ms: LatencyOption = None,
    min_accuracy: AccuracyOption = None,
    max_cost_usd_per_million: CostOption = None,
    optimize: OptimizeOption = None,
    variants: VariantsOption = None,
    max_lanes: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Lanes at most.", rich_help_panel="What serves"),
    ] = 64,
    max_batch: BatchOption = None,
    noise: NoiseOption = "measured",
    slow_from_half: SlowOption = 1.0,
    usd_per_lane_hour: PriceOption = None,
    accuracy_margin: MarginOption = 0.0,
    seeds: SeedsOption = 3,
    jobs: JobsOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find how many lanes some traffic needs, which variants carry it, and what that costs.

    Replays the traffic with the server's own decisions on more and more lanes until the targets
    hold in every draw, and in as many fresh ones. Says also what no policy could do with less.

    Example: gearshift plan models digits --trace day.csv --rate-per-s 2000 --max-latency-ms 20

    Exit code: 0; 3 when no number of lanes suffices, with the reason; 2 for a value or a file that
    makes no sense; 1 when the store or the model is not usable.
    """
    if not 0 < target_attainment <= 1:
        fail(
            f"--target-attainment: expected a share above 0, at most 1, got {target_attainment}",
            BAD_VALUE,
        )
    if target_accuracy is not None and not 0 < target_accuracy <= 1:
        fail(
            f"--target-accuracy: expected a number above 0, at most 1, got {target_accuracy}",
            BAD_VALUE,
        )
    operator = load_settings(config)
    price = operator.usd_per_lane_hour if usd_per_lane_hour is None else usd_per_lane_hour
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
    if rate_per_s is None:
        if isinstance(workload.arriving, str):
            fail(f"--rate-per-s: expected one, for {trace!r} has no rate of its own", BAD_VALUE)
        rate_per_s = workload.arriving.rate_per_s
    check_reachable(workload, target_accuracy)
    target = Target(target_attainment, target_accuracy)
    try:
        trial.traffic(workload, Case(rate_per_s, 1, 1))
        with pool(workload, jobs) as workers:
            found = search(workers, workload, target, rate_per_s, seeds, max_lanes)
    except BadTrace as error:
        fail(f"--trace: {error}", BAD_VALUE)
    warn_if_short(workload, rate_per_s)
    body = as_json(workload, found, rate_per_s, price)
    if json:
        print_json(body)
    else:
        print_found(workload, found, body)
