"""The workload that the options of `simulate` and `plan` describe."""

from __future__ import annotations

import math
from pathlib import Path

from gateway.cli.console import BAD_VALUE, UNSATISFIABLE, fail, warn
from gateway.cli.decide import stated
from gateway.cli.workload_options import DEADLINE_MS, Options
from gateway.cli.workload_variants import of_store, of_table
from gateway.settings import Settings
from router.errors import GearshiftError, UnknownVariant
from router.route import Policy
from router.simulate import arrivals, mix, service
from router.simulate.mix import TENANTS, Mix
from router.simulate.trace import BadTrace, Trace
from router.simulate.trace.parse import Format, parse
from router.simulate.trial import Workload, unmet

# A replay that lasts fewer deadlines than that is mostly beginning and end.
_LEAST_DEADLINES = 10


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
        menus, services = of_table(options.variants, tenants, noise, operator)
    else:
        assert options.models is not None
        menus, services = of_store(options.models, options.model, tenants, noise, operator)
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
