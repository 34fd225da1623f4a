"""The lanes that are enough, as text and as JSON."""

from __future__ import annotations

import math
from typing import Any

from gateway.cli.console import out
from gateway.cli.console import table as new_table
from gateway.cli.enough import Found
from gateway.cli.figures import percent, rate
from router.menu import SECONDS_PER_HOUR
from router.simulate import trial
from router.simulate.trial import Workload


def as_json(
    workload: Workload, found: Found, rate_per_s: float, usd_per_lane_hour: float
) -> dict[str, Any]:
    """What was found, for programs."""
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


def print_found(workload: Workload, found: Found, body: dict[str, Any]) -> None:
    """Print what was found; `body` is the same as JSON."""
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
    worst = percent(body["worst_attainment"])
    console.print(f"{name} at {rate(body['rate_per_s'])} requests/s needs {lanes}; {fewer}")
    console.print(
        f"  in time            {percent(body['attainment'])}, "
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
