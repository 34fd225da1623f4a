"""Shifting: which variant serves, when and why that changed, and the load beside it."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from deploy.dashboards import frame, promql
from deploy.dashboards.panels import (
    GREEN,
    GREY,
    RED,
    bars,
    lines,
    on_the_right,
    query,
    stacked,
    states,
)
from deploy.dashboards.promql import MODEL, OK, TENANT, grown, rate, summed

_REQUESTS = "gearshift_requests_total"
_VARIANT = frame.link("The variant's card and health", frame.VARIANTS, "model")
_LOAD = frame.link("Lanes and queues", frame.LANES)


def build() -> model.Dashboard:
    """Which variant serves, and why."""
    return frame.board(
        frame.SHIFTING,
        "Gearshift: shifting",
        "Which variant serves, when and why that changed, and the load beside it.",
        {"Which variant serves": _mix(), "Why": _reasons(), "What changed": _changes()},
        tenants=True,
        onward=frame.link("Where the time goes", frame.LANES),
    )


def _mix() -> list[frame.Panel]:
    answers = rate(_REQUESTS, MODEL, TENANT, OK, by="model, variant")
    mix = lines(
        "Share of answers by variant",
        "Of the requests that were answered, which variant did. As load grows, smaller variants "
        "take over where the constraints allow it.",
        query(answers, "{{model}} {{variant}}"),
        unit="reqps",
        height=10,
    ).data_links([_VARIANT])
    load = lines(
        "Load",
        "Requests a second, answered and not, and on the right how many wait for a lane.",
        query(rate(_REQUESTS, MODEL, TENANT, OK), "answered"),
        query(rate(_REQUESTS, MODEL, TENANT, 'outcome!="ok"'), "not answered"),
        query(summed("gearshift_queued_requests", MODEL), "waiting"),
        unit="reqps",
        height=10,
        colours={"answered": GREEN, "not answered": RED, "waiting": GREY},
    ).data_links([_LOAD])
    return [
        stacked(mix, percent=True),
        on_the_right(load, "waiting", "short"),
        lines(
            "Answers by variant",
            "Answered requests a second, by the variant that answered.",
            query(answers, "{{model}} {{variant}}"),
            unit="reqps",
        ).data_links([_VARIANT]),
        lines(
            "Lane utilisation",
            "The share of the lanes' time in which they run batches. Shifts are expected where it "
            "comes close to 100 %. All models together.",
            query(promql.utilisation(), "lanes"),
            unit="percentunit",
            most=1,
        ).data_links([_LOAD]),
    ]


def _reasons() -> list[frame.Panel]:
    shifts = lines(
        "Shifts",
        "Answers a second that came from another variant than an idle machine would have taken, "
        "from which to which, and why. All tenants together.",
        query(
            rate("gearshift_shifts_total", MODEL, by="model, source, target, reason"),
            "{{model}} {{source}} → {{target}} ({{reason}})",
        ),
        unit="ops",
        none="No request was shifted",
    ).data_links([_VARIANT])
    decisions = lines(
        "Decisions by reason",
        "Decisions a second: the reason for the variant that was taken, or the verdict where none "
        "was. All tenants together.",
        query(rate("gearshift_decisions_total", MODEL, by="reason"), "{{reason}}"),
        unit="ops",
    )
    return [
        shifts,
        stacked(decisions),
        lines(
            "Constraints that gave way",
            "Requests a second in which a constraint was relaxed, as the caller let it be. All "
            "tenants together.",
            query(
                rate("gearshift_relaxed_total", MODEL, by="model, constraint"),
                "{{model}} {{constraint}}",
            ),
            unit="ops",
            none="Nothing was relaxed",
        ),
        lines(
            "Refusals by constraint",
            "Decisions a second that refused, by each constraint that kept a variant from "
            "answering; and requests refused by a decision that still stood, without one of their "
            "own. All tenants together.",
            query(
                rate("gearshift_constraint_misses_total", MODEL, by="model, constraint"),
                "{{model}} {{constraint}}",
            ),
            query(rate("gearshift_shed_total", MODEL, by="model"), "{{model}} without a decision"),
            unit="ops",
            none="Nothing was refused",
        ).data_links([frame.link("By tenant", frame.TENANTS)]),
    ]


def _changes() -> list[frame.Panel]:
    step = promql.STEP
    changes = lines(
        "Builds that came and went",
        "Loads (the first and each later one), swaps of a build for another of its name, "
        "evictions under the memory limit, and builds freed because they were replaced, removed "
        "or taken out of service.",
        *(
            query(
                grown(f"gearshift_variant_{name}_total", MODEL, by="model, variant", over=step),
                f"{{{{model}}}} {{{{variant}}}} {word}",
            )
            for name, word in (
                ("loads", "loaded"),
                ("swaps", "swapped"),
                ("evictions", "evicted"),
                ("frees", "freed"),
            )
        ),
        unit="short",
        none="No build came or went",
    )
    rows = rate("gearshift_shadow_rows_total", MODEL, 'outcome="agree"', by="model, variant")
    agreement = promql.share(rows, rate("gearshift_shadow_rows_total", MODEL, by="model, variant"))
    return [
        bars(changes),
        states(
            "Variants that are ready",
            "Loaded, warm and healthy, on every worker.",
            query(
                summed("gearshift_variant_ready", MODEL, by="model, variant", function="min"),
                "{{model}} {{variant}}",
            ),
            named={0: ("not ready", RED), 1: ("ready", GREEN)},
        ),
        lines(
            "Agreement of a shadow",
            "Rows that a shadow answered as the variant that served did, of all that it was given.",
            query(agreement, "{{model}} {{variant}}"),
            unit="percentunit",
            most=1,
            none="No variant is a shadow",
        ).data_links([_VARIANT]),
        lines(
            "Requests of a shadow",
            "Requests a second that were picked for a shadow: compared, failed, lost, or skipped "
            "because the lanes were busy.",
            query(
                rate("gearshift_shadow_requests_total", MODEL, by="model, variant, outcome"),
                "{{model}} {{variant}} {{outcome}}",
            ),
            unit="reqps",
            none="No variant is a shadow",
        ),
    ]
