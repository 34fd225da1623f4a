"""The comparison of policies, as tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gateway.cli.comparison import Result
from gateway.cli.console import out
from gateway.cli.console import table as new_table
from gateway.cli.figures import rate
from gateway.cli.policies import OURS
from router.simulate import score, trial
from router.simulate.score import Figure, Line
from router.simulate.trial import Workload


def print_results(workload: Workload, seeds: int, results: Sequence[Result]) -> None:
    """A table for each result, under what they have in common."""
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


def as_json(workload: Workload, results: Sequence[Result], lines: Sequence[Line]) -> dict[str, Any]:
    """Everything, for programs."""
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
