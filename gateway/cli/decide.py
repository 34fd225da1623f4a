"""`gearshift decide`: the decision for a request, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, UNSATISFIABLE, fail, out, print_json
from gateway.cli.console import table as new_table
from gateway.cli.store import ConfigOption, JsonOption, ModelsArgument, load_settings, read
from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import Catalog
from gateway.settings import Settings
from router.constraints import Constraints, Floor, or_default, parse
from router.decision import Decision
from router.errors import InvalidRequest, UnknownVariant
from router.menu import Menu
from router.route import Policy, route
from router.snapshot import idle

_CONSTRAINTS = "What the request demands"


def decide(
    models: ModelsArgument,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    max_latency_ms: Annotated[
        str | None,
        typer.Option(metavar="MS", help="Deadline.", rich_help_panel=_CONSTRAINTS),
    ] = None,
    min_accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="FLOOR",
            help="0.97 on the task's metric, or 99% of the reference variant.",
            rich_help_panel=_CONSTRAINTS,
        ),
    ] = None,
    max_cost_usd_per_million: Annotated[
        str | None,
        typer.Option(
            metavar="USD", help="Ceiling on the charge per million.", rich_help_panel=_CONSTRAINTS
        ),
    ] = None,
    optimize: Annotated[
        str | None,
        typer.Option(
            metavar="accuracy|cost|latency",
            help="What to make best among what is allowed.",
            rich_help_panel=_CONSTRAINTS,
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Pin one variant, or `reference`.", rich_help_panel=_CONSTRAINTS
        ),
    ] = None,
    relax: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="What may give way when nothing fits, such as latency,cost.",
            rich_help_panel=_CONSTRAINTS,
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the request.")] = 1,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Decide as the server would when idle, and say why.

    Prints the variant that would answer, then each one refused and what it breaks. Margin, price
    and defaults are the operator's: GEARSHIFT_ACCURACY_MARGIN and so on, or --config.

    Example: gearshift decide models digits --max-latency-ms 5 --min-accuracy 99%

    Exit code: 0 when a variant would answer; 3 when none can, with the nearest values that would
    fit; 2 for a value that makes no sense; 1 when the store or the model is not usable.
    """
    parameters = {
        "max_latency_ms": max_latency_ms,
        "min_accuracy": min_accuracy,
        "max_cost_usd_per_million": max_cost_usd_per_million,
        "optimize": optimize,
        "variant": variant,
        "relax": relax,
    }
    demanded = stated(parameters)
    operator = load_settings(config)
    menu = _menu(read(models, operator), models, model, operator)
    try:
        decision = _decision(demanded, menu, operator, rows)
    except UnknownVariant as error:
        fail(f"--variant: {error}", BAD_VALUE)
    if json:
        print_json(decision.as_json())
    else:
        _print(decision, menu)
    if decision.verdict != "accepted":
        raise typer.Exit(UNSATISFIABLE)


def stated(parameters: Mapping[str, str | None]) -> Constraints:
    """What options demand, by the key of each; exit 2 for a value that makes no sense."""
    try:
        return parse((), {key: raw for key, raw in parameters.items() if raw is not None})
    except InvalidRequest as error:
        key = str(error.members["field"]).removeprefix("parameters.")
        fail(
            f"--{key.replace('_', '-')}: expected {error.members['expected']}, "
            f"got {error.members['received']!r}",
            BAD_VALUE,
        )


def _menu(found: Catalog, models: str, model: str, operator: Settings) -> Menu:
    entries = found.models.get(model)
    if entries is None:
        known = ", ".join(found.models) or "none that is whole"
        fail(f"{models}: unknown model {model!r}; there are {known}", STORE_PROBLEM)
    return catalog.menu_of(
        entries,
        percentile=operator.latency_percentile,
        usd_per_lane_hour=operator.usd_per_lane_hour,
        max_batch=operator.max_batch,
    )


def _decision(stated: Constraints, menu: Menu, operator: Settings, rows: int) -> Decision:
    policy = Policy(
        accuracy_margin=operator.accuracy_margin,
        default=operator.default_constraints,
    )
    snapshot = idle(frozenset(menu.by_name))
    return route(or_default(stated, policy.default), menu, snapshot, policy, rows)


def _print(decision: Decision, menu: Menu) -> None:
    console = out()
    if decision.verdict == "accepted":
        offer = menu.by_name[decision.variant]
        console.print(f"{decision.variant}: {decision.reason}: {decision.why}", soft_wrap=True)
        console.print(f"  predicted latency  {decision.predicted_latency_ms:.3g} ms")
        console.print(
            f"  accuracy           {100 * offer.accuracy:.2f} % "
            f"[{100 * offer.accuracy_low:.2f}, {100 * offer.accuracy_high:.2f}]"
        )
        console.print(
            f"  cost               {decision.cost_usd_per_million:.3g} USD per million requests"
        )
        if decision.relaxed:
            console.print(f"  relaxed            {', '.join(decision.relaxed)}")
        if others := decision.allowed[1:]:
            console.print(f"  also allowed       {', '.join(others)}")
    else:
        console.print(f"{decision.verdict}: {decision.why}", soft_wrap=True)
    if decision.refused:
        view = new_table("refused", "because of", "asked", "offered", left=2)
        for refusal in decision.refused:
            reason = "another variant is pinned" if refusal.asked is None else refusal.constraint
            view.add_row(refusal.variant, reason, _text(refusal.asked), _text(refusal.offered))
        console.print(view)


def _text(value: float | Floor | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, Floor) else f"{value:.4g}"
