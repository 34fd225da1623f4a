"""The options of a workload: what `simulate` and `plan` both ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

# What a request demands where nothing is said of it: without a deadline nothing would be scarce.
DEADLINE_MS = "30"

_WORKLOAD = "What arrives"
_DEMANDS = "What each request demands, unless --mix says"
_MACHINE = "What serves"

ModelsArgument = Annotated[
    str | None,
    typer.Argument(metavar="MODELS", help="The store, unless --variants is given."),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="A model's name; may be left out where there is one."),
]
TraceOption = Annotated[
    str,
    typer.Option(
        "--trace",
        metavar="FILE|SPEC",
        help="A recorded trace, or a process: poisson, gamma:cv=4, diurnal, spike, map.",
        rich_help_panel=_WORKLOAD,
    ),
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--trace-format",
        metavar="auto|arrivals|counts|tokens",
        help="What the file's numbers are, where its content leaves it open.",
        rich_help_panel=_WORKLOAD,
    ),
]
RequestsOption = Annotated[
    int,
    typer.Option("--requests", min=1, help="Requests of a replay.", rich_help_panel=_WORKLOAD),
]
SeedsOption = Annotated[
    int,
    typer.Option("--seeds", min=1, max=1000, help="Replays of each kind, by other draws."),
]
MixOption = Annotated[
    str | None,
    typer.Option(
        "--mix",
        metavar="FILE|tenants",
        help="Tenants and what they demand, as TOML; `tenants` is the one that comes with it.",
        rich_help_panel=_WORKLOAD,
    ),
]
LatencyOption = Annotated[
    str | None,
    typer.Option(
        "--max-latency-ms",
        metavar="MS|none",
        help=f"Deadline. Default: {DEADLINE_MS}.",
        rich_help_panel=_DEMANDS,
    ),
]
AccuracyOption = Annotated[
    str | None,
    typer.Option(
        "--min-accuracy",
        metavar="FLOOR",
        help="0.97 on the task's metric, or 99% of the reference variant.",
        rich_help_panel=_DEMANDS,
    ),
]
CostOption = Annotated[
    str | None,
    typer.Option(
        "--max-cost-usd-per-million",
        metavar="USD",
        help="Ceiling on the charge per million.",
        rich_help_panel=_DEMANDS,
    ),
]
OptimizeOption = Annotated[
    str | None,
    typer.Option(
        "--optimize",
        metavar="accuracy|cost|latency",
        help="What to make best among what is allowed.",
        rich_help_panel=_DEMANDS,
    ),
]
VariantsOption = Annotated[
    Path | None,
    typer.Option(
        "--variants",
        metavar="FILE",
        help="A JSON table of variants, in place of a store; see docs/how-to/simulate.md.",
        rich_help_panel=_MACHINE,
    ),
]
NoiseOption = Annotated[
    str,
    typer.Option(
        "--noise",
        metavar="measured|none|lognormal:SIGMA",
        help="How batch times scatter; measured: as the cards say.",
        rich_help_panel=_MACHINE,
    ),
]
PriceOption = Annotated[
    float | None,
    typer.Option("--usd-per-lane-hour", min=0.0, help="Price of a lane.", rich_help_panel=_MACHINE),
]
BatchOption = Annotated[
    int | None,
    typer.Option("--max-batch", min=1, help="Rows of a batch.", rich_help_panel=_MACHINE),
]
SlowOption = Annotated[
    float,
    typer.Option(
        "--slow-from-half",
        metavar="FACTOR",
        min=1.0,
        max=1000.0,
        help="From half of the time on, batches take so many times longer.",
        rich_help_panel=_MACHINE,
    ),
]
MarginOption = Annotated[
    float,
    typer.Option(
        "--accuracy-margin",
        min=0.0,
        max=1.0,
        help="Variants within it count as equal. 0 here, though a server has 0.005: a margin gives "
        "accuracy away knowingly, which would look like a loss against the bound.",
        rich_help_panel=_MACHINE,
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Replays at a time; by default one for each usable core."),
]


class Options(NamedTuple):
    """The options of a workload, as they came."""

    models: str | None
    model: str | None
    variants: Path | None
    trace: str
    trace_format: str
    requests: int
    mix: str | None
    demands: Mapping[str, str | None]
    noise: str
    usd_per_lane_hour: float | None
    max_batch: int | None
    slow_from_half: float
    accuracy_margin: float
