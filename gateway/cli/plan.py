"""`gearshift plan`: how many lanes some traffic needs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

from gateway.cli.console import BAD_VALUE, UNSATISFIABLE, fail, out, print_json
from gateway.cli.console import table as new_table
from gateway.cli.store import ConfigOption, JsonOption, load_settings
from gateway.cli.trials import Job, Pool, pool
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
    rate,
    warn_if_short,
)
from router.menu import SECONDS_PER_HOUR
from router.simulate import trial
from router.simulate.score import Score
from router.simulate.trace import BadTrace
from router.simulate.trial import Case, Workload

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
    _reachable(workload, target_accuracy)
    target = _Target(target_attainment, target_accuracy)
    try:
        trial.traffic(workload, Case(rate_per_s, 1, 1))
        with pool(workload, jobs) as workers:
            found = _search(workers, workload, target, rate_per_s, seeds, max_lanes)
    except BadTrace as error:
        fail(f"--trace: {error}", BAD_VALUE)
    warn_if_short(workload, rate_per_s)
    body = _as_json(workload, found, rate_per_s, price)
    if json:
        print_json(body)
    else:
        _print(workload, found, body)


class _Target(NamedTuple):
    attainment: float
    accuracy: float | None

    def met(self, scores: list[Score]) -> bool:
        """Whether every draw reaches it."""
        return all(
            of.attainment >= self.attainment
            and (self.accuracy is None or of.effective_accuracy_answered >= self.accuracy)
            for of in scores
        )


class _Found(NamedTuple):
    """What was found.

    Attributes:
        least: lanes below which no policy could reach the target.
        scores: of every draw that was looked at with `lanes`, the fresh ones too.
        used: answers by (model, variant), over all draws.
        enough: whether the targets were seen to hold with nothing else loaded.
    """

    lanes: int
    least: int
    scores: list[Score]
    used: Counter[tuple[str, str]]
    enough: bool


def _reachable(workload: Workload, accuracy: float | None) -> None:
    """Exits where answers cannot be as accurate as that on any number of lanes."""
    if accuracy is None:
        return
    best = math.fsum(
        tenant.share * max(offer.accuracy for offer in trial.allowed(workload, tenant))
        for tenant in workload.mix.tenants
    )
    if best < accuracy:
        fail(
            f"--target-accuracy: no number of lanes suffices: expected at most {best:.6g}, which "
            f"the most accurate variants that may answer have, got {accuracy:g}",
            UNSATISFIABLE,
        )


def _search(
    workers: Pool,
    workload: Workload,
    target: _Target,
    rate_per_s: float,
    seeds: int,
    max_lanes: int,
) -> _Found:
    def replayed(
        lanes: int, first: int = 1, loaded: frozenset[tuple[str, str]] | None = None
    ) -> list[Score]:
        todo = [
            Job(Case(rate_per_s, lanes, seed), OURS, loaded=loaded)
            for seed in range(first, first + seeds)
        ]
        return [done.score for done in workers.replays(todo, f"{lanes} lanes").values()]

    def possible(lanes: int) -> bool:
        limits = workers.limits([Case(rate_per_s, lanes, seed) for seed in range(1, seeds + 1)])
        least_worth = target.attainment * (target.accuracy or 0.0)
        return all(
            of.served >= target.attainment and of.worth >= least_worth for of in limits.values()
        )

    if not possible(max_lanes):
        _hopeless(workers, target, rate_per_s, seeds, max_lanes)
    least = _first(possible, 0, max_lanes)
    # More lanes are not always better to the last digit, so what holds is looked for upwards.
    failed, lanes, step = least - 1, least, 1
    while not target.met(replayed(lanes)):
        if lanes == max_lanes:
            _too_few(replayed(max_lanes), target, max_lanes)
        failed, lanes, step = lanes, min(lanes + step, max_lanes), step * 2
    lanes = _first(lambda count: target.met(replayed(count)), failed, lanes)
    while not target.met(replayed(lanes, seeds + 1)):
        if lanes == max_lanes:
            _too_few(replayed(max_lanes, seeds + 1), target, max_lanes)
        lanes += 1
    scores = replayed(lanes) + replayed(lanes, seeds + 1)
    used: Counter[tuple[str, str]] = Counter()
    for of in scores:
        used.update(of.answers)
    loaded = frozenset(used)
    idle = sum(len(menu.offers) for menu in workload.menus.values()) > len(used)
    enough = idle and target.met(replayed(lanes, 1, loaded) + replayed(lanes, seeds + 1, loaded))
    return _Found(lanes, least, scores, used, enough)


def _first(holds: Callable[[int], bool], fails: int, known: int) -> int:
    """The first number above `fails` for which `holds`, by bisection; it does for `known`."""
    while known - fails > 1:
        middle = (fails + known) // 2
        if holds(middle):
            known = middle
        else:
            fails = middle
    return known


def _hopeless(
    workers: Pool, target: _Target, rate_per_s: float, seeds: int, max_lanes: int
) -> NoReturn:
    limits = workers.limits([Case(rate_per_s, max_lanes, seed) for seed in range(1, seeds + 1)])
    served = min(of.served for of in limits.values())
    if served < target.attainment:
        fail(
            f"no number of lanes up to {max_lanes} suffices: at {rate(rate_per_s)} requests/s no "
            f"policy could answer more than {_share(served)} in time, even by the fastest "
            f"variants, and {_share(target.attainment)} is asked for; raise --max-lanes, or the "
            "deadline",
            UNSATISFIABLE,
        )
    worth = min(of.worth for of in limits.values())
    asked = target.attainment * (target.accuracy or 0.0)
    fail(
        f"no number of lanes up to {max_lanes} suffices: at {rate(rate_per_s)} requests/s no "
        f"policy could reach an effective accuracy above {worth:.5f}, and "
        f"{_share(target.attainment)} in time at {target.accuracy:g} comes to {asked:.5f}; "
        "raise --max-lanes, or lower --target-accuracy",
        UNSATISFIABLE,
    )


def _too_few(scores: list[Score], target: _Target, lanes: int) -> NoReturn:
    worst = min(scores, key=lambda of: of.attainment)
    lost = Counter(worst.verdicts)
    lost.pop("answered", None)
    total = sum(worst.verdicts.values())
    why = ", ".join(f"{_share(n / total)} {verdict}" for verdict, n in lost.most_common())
    accuracy = min(of.effective_accuracy_answered for of in scores)
    wanted = "" if target.accuracy is None else f" at {target.accuracy:g}"
    fail(
        f"no number of lanes up to {lanes} suffices: with {lanes} {_share(worst.attainment)} are "
        f"answered in time, at an accuracy of {accuracy:.5f}"
        + (f" ({why})" if why else "")
        + f"; {_share(target.attainment)}{wanted} is asked for",
        UNSATISFIABLE,
    )


def _as_json(
    workload: Workload, found: _Found, rate_per_s: float, usd_per_lane_hour: float
) -> dict[str, Any]:
    total = found.used.total()
    usd_per_hour = found.lanes * usd_per_lane_hour
    charged = math.fsum(of.cost_usd_per_million for of in found.scores) / len(found.scores)
    return {
        "trace": trial.name_of(workload.arriving),
        "rate_per_s": rate_per_s,
        "lanes": found.lanes,
        "least_lanes_of_any_policy": found.least,
        "attainment": math.fsum(of.attainment for of in found.scores) / len(found.scores),
        "worst_attainment": min(of.attainment for of in found.scores),
        "accuracy": math.fsum(of.effective_accuracy_answered for of in found.scores)
        / len(found.scores),
        "draws": len(found.scores),
        "usd_per_hour": usd_per_hour,
        "usd_per_million": usd_per_hour / (rate_per_s * SECONDS_PER_HOUR) * 1e6,
        "charged_usd_per_million": charged,
        "variants": [
            {
                "model": model,
                "variant": offer.name,
                "accuracy": offer.accuracy,
                "share_of_answers": found.used[model, offer.name] / total,
            }
            for model, menu in workload.menus.items()
            for offer in menu.offers
        ],
        "enough_without_unused": found.enough,
    }


def _print(workload: Workload, found: _Found, body: dict[str, Any]) -> None:
    console = out()
    name = body["trace"]
    lanes = f"{found.lanes} lane{'s' if found.lanes > 1 else ''}"
    fewer = (
        "one is the least there can be"
        if found.least == 1 == found.lanes
        else "no policy could do with fewer"
        if found.least == found.lanes
        else f"no policy could do with fewer than {found.least}"
    )
    worst = _share(body["worst_attainment"])
    console.print(f"{name} at {rate(body['rate_per_s'])} requests/s needs {lanes}; {fewer}")
    console.print(
        f"  in time            {_share(body['attainment'])}, "
        f"in the worst of {body['draws']} draws {worst}"
    )
    console.print(f"  accuracy           {100 * body['accuracy']:.3f} % of those answered")
    console.print(
        f"  cost               USD {body['usd_per_hour']:.4g} an hour, "
        f"USD {body['usd_per_million']:.4g} per million requests, of which "
        f"{body['charged_usd_per_million']:.4g} for lane time in use"
    )
    several = len(workload.menus) > 1
    view = new_table("variant", "accuracy %", "answers %")
    for row in body["variants"]:
        label = f"{row['model']}/{row['variant']}" if several else row["variant"]
        share = row["share_of_answers"]
        view.add_row(
            label, f"{100 * row['accuracy']:.2f}", f"{100 * share:.2f}" if share else "never"
        )
    console.print(view)
    unused = [
        f"{row['model']}/{row['variant']}" if several else row["variant"]
        for row in body["variants"]
        if not row["share_of_answers"]
    ]
    if unused and found.enough:
        console.print(
            f"{', '.join(unused)} need not be loaded: replayed without, the targets hold too",
            soft_wrap=True,
        )
    elif unused:
        console.print(
            f"{', '.join(unused)} never answer, yet without them the targets did not hold",
            soft_wrap=True,
        )


def _share(share: float) -> str:
    """A share in percent, with so many digits that it is not rounded to all."""
    digits = 2 if share > 0.9999 or share < 0.99 else 3
    text = f"{100 * share:.{digits}f}"
    return f"{100 * share:.6g} %" if text.startswith("100") and share < 1 else f"{text} %"
