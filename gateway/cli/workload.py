"""What `simulate` and `plan` have in common: the workload that their options describe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, UNSATISFIABLE, fail, warn
from gateway.cli.decide import stated
from gateway.cli.store import read
from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import Entry
from gateway.settings import Settings
from router import policies
from router.errors import GearshiftError, UnknownVariant
from router.menu import Menu
from router.route import Policy
from router.simulate import arrivals, mix, service, table
from router.simulate.mix import TENANTS, Mix
from router.simulate.service import Noise, Service
from router.simulate.trace import BadTrace, Trace
from router.simulate.trace.parse import Format, parse
from router.simulate.trial import Workload, unmet

# What a request demands where nothing is said of it: without a deadline nothing would be scarce.
DEADLINE_MS = "30"
OURS = "gearshift"
# A replay that lasts fewer deadlines than that is mostly beginning and end.
_LEAST_DEADLINES = 10
STATIC = "static:"

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


def build(options: Options, operator: Settings) -> Workload:
    """The workload that `options` describe; exits with a message when they describe none."""
    price = options.usd_per_lane_hour
    if price is not None:
        if not math.isfinite(price):
            fail(f"--usd-per-lane-hour: expected a finite number, got {price}", BAD_VALUE)
        operator = operator.model_copy(update={"usd_per_lane_hour": price})
    if options.max_batch is not None:
        operator = operator.model_copy(update={"max_batch": options.max_batch})
    arriving = _arriving(options.trace, options.trace_format)
    tenants = _mix(options)
    try:
        noise = service.noise(options.noise)
    except GearshiftError as error:
        fail(f"--{error}", BAD_VALUE)
    if (options.models is None) == (options.variants is None):
        given = "neither" if options.models is None else "both"
        fail(f"expected either MODELS, a store, or --variants, a table; got {given}", BAD_VALUE)
    if options.variants is not None:
        menus, services = _of_table(options.variants, tenants, noise, operator)
    else:
        assert options.models is not None
        menus, services = _of_store(options.models, options.model, tenants, noise, operator)
    workload = Workload(
        arriving=arriving,
        requests=options.requests,
        mix=tenants,
        menus=menus,
        services=services,
        policy=Policy(options.accuracy_margin, operator.default_constraints),
        max_batch=operator.max_batch,
        slow_from_half=options.slow_from_half,
    )
    try:
        impossible = unmet(workload)
    except UnknownVariant as error:
        fail(f"--mix: {error}", BAD_VALUE)
    for tenant, why in impossible.items():
        fail(f"tenant {tenant!r}: {why}", UNSATISFIABLE)
    return workload


def warn_if_short(workload: Workload, rate_per_s: float) -> None:
    """Say where a replay is over before anything is scarce."""
    tenants = workload.mix.tenants
    limits = [
        t.share * t.constraints.max_latency_ms for t in tenants if t.constraints.max_latency_ms
    ]
    shares = [t.share for t in tenants if t.constraints.max_latency_ms]
    if not limits:
        return
    deadline_ms = math.fsum(limits) / math.fsum(shares)
    lasts_ms = workload.requests / rate_per_s * 1000
    if lasts_ms < _LEAST_DEADLINES * deadline_ms:
        warn(
            f"a replay lasts {lasts_ms:.2g} ms, less than {_LEAST_DEADLINES} deadlines of "
            f"{deadline_ms:.3g} ms on average, so its end counts for much; take more --requests"
        )


def rate(per_s: float) -> str:
    """Requests per s, to read."""
    return f"{per_s:,.0f}" if per_s >= 1000 else f"{per_s:.4g}"


def numbers(option: str, text: str, expected: str, fits: Callable[[float], bool]) -> list[float]:
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


def policy_names(workload: Workload) -> list[str]:
    """Every policy that can be replayed: ours, the baselines, and each variant by itself."""
    variants = dict.fromkeys(
        offer.name for menu in workload.menus.values() for offer in menu.offers
    )
    others = [name for name in policies.names() if name != OURS and not name.endswith(":")]
    return [OURS, *others, *[STATIC + name for name in variants]]


def choose_policies(text: str, workload: Workload) -> list[str]:
    """The policies that a list names; `all` is every one. Exit 2 for one that there is not."""
    there = policy_names(workload)
    chosen: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if name != "all" and name not in there:
            fail(f"unknown policy {name!r}; there are {', '.join(there)}", BAD_VALUE)
        chosen.extend(there if name == "all" else [name])
    return list(dict.fromkeys(chosen))


def _arriving(text: str, format: str) -> Trace | str:
    path = Path(text)
    if path.is_file():
        try:
            return parse(path.name, path.read_bytes(), format=_format(format))
        except OSError as error:
            fail(f"--trace: {text}: cannot be read: {error.strerror}", BAD_VALUE)
        except BadTrace as error:
            fail(f"--trace: {error}", BAD_VALUE)
    try:
        arrivals.parse(text)
    except BadTrace as error:
        # A process that was misspelt, or a file that is not there? Only its field tells.
        no_file = "there is no such file; " if error.members["field"] == "process" else ""
        fail(f"--trace: {no_file}{error}", BAD_VALUE)
    return text.strip()


def _format(text: str) -> Format:
    # `parse` checks it and names those there are.
    return text  # type: ignore[return-value]


def _mix(options: Options) -> Mix:
    said = {key: value for key, value in options.demands.items() if value is not None}
    if options.mix is None:
        said = {"max_latency_ms": DEADLINE_MS, **said}
        if said["max_latency_ms"].strip().lower() == "none":
            del said["max_latency_ms"]
        return mix.single(stated(said))
    if said:
        names = ", ".join("--" + key.replace("_", "-") for key in said)
        fail(f"{names}: expected in the mix, where each tenant says it, got it with --mix", 2)
    if options.mix == "tenants":
        return TENANTS
    path = Path(options.mix)
    try:
        return mix.parse(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        fail(f"--mix: expected a file or `tenants`; {path}: {error.strerror}", BAD_VALUE)
    except UnicodeDecodeError as error:
        fail(f"--mix: {path}: expected text in UTF-8: {error}", BAD_VALUE)
    except GearshiftError as error:
        fail(f"--mix: {error}", BAD_VALUE)


_Variants = tuple[dict[str, Menu], dict[tuple[str, str], Service]]


def _of_table(path: Path, tenants: Mix, noise: Noise, operator: Settings) -> _Variants:
    try:
        parsed = table.parse(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        fail(f"--variants: {path}: cannot be read: {error.strerror}", BAD_VALUE)
    except UnicodeDecodeError as error:
        fail(f"--variants: {path}: expected text in UTF-8: {error}", BAD_VALUE)
    except GearshiftError as error:
        fail(f"--variants: {error}", BAD_VALUE)
    menus: dict[str, Menu] = {}
    services: dict[tuple[str, str], Service] = {}
    for model in _used(list(parsed), tenants, str(path)):
        rows = parsed[model]
        for row in rows:
            key = model, row.name
            services[key] = service.service(row.latency, noise, operator.max_batch)
        menus[model] = table.menu(
            model,
            tuple(replace(row, latency=service.noisy(row.latency, noise)) for row in rows),
            percentile=operator.latency_percentile,
            usd_per_lane_hour=operator.usd_per_lane_hour,
            max_batch=operator.max_batch,
        )
    return menus, services


def _of_store(
    path: str, model: str | None, tenants: Mix, noise: Noise, operator: Settings
) -> _Variants:
    found = read(path, operator)
    for problem in found.problems:
        warn(f"left out: {problem}")
    there = list(found.models)
    if model is not None and model not in there:
        known = ", ".join(there) or "none that is whole"
        fail(f"{path}: unknown model {model!r}; there are {known}", STORE_PROBLEM)
    if not there:
        fail(f"{path}: nothing here can be served", STORE_PROBLEM)
    menus: dict[str, Menu] = {}
    services: dict[tuple[str, str], Service] = {}
    for name in _used(there if model is None else [model], tenants, path):
        entries = found.models[name]
        for entry in entries.values():
            key = name, entry.card.variant
            services[key] = service.service(entry.card.latency, noise, operator.max_batch)
        menus[name] = catalog.menu_of(
            {key: _noisy(entry, noise) for key, entry in entries.items()},
            percentile=operator.latency_percentile,
            usd_per_lane_hour=operator.usd_per_lane_hour,
            max_batch=operator.max_batch,
        )
    return menus, services


def _noisy(entry: Entry, noise: Noise) -> Entry:
    latency = service.noisy(entry.card.latency, noise)
    return replace(entry, card=entry.card.model_copy(update={"latency": latency}))


def _used(there: list[str], tenants: Mix, where: str) -> list[str]:
    """The models that the tenants ask for, in the order of `there`."""
    known = ", ".join(there)
    for tenant in tenants.tenants:
        if not tenant.model and len(there) > 1:
            fail(
                f"{where}: tenant {tenant.name!r}: model: expected one of {known}, got nothing; "
                "name one as MODEL, or in the mix",
                BAD_VALUE,
            )
        if tenant.model and tenant.model not in there:
            fail(
                f"{where}: tenant {tenant.name!r}: model: expected one of {known}, "
                f"got {tenant.model!r}",
                BAD_VALUE,
            )
    asked = {tenant.model or there[0] for tenant in tenants.tenants}
    return [name for name in there if name in asked]
