"""Overview: are the promises kept, what does it cost, is it well."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from deploy.dashboards import frame, promql
from deploy.dashboards.panels import (
    BLUE,
    GREEN,
    GREY,
    OBJECTIVE,
    ORANGE,
    RED,
    lines,
    listing,
    now,
    number,
    objective,
    query,
    rows,
    stacked,
    states,
)
from deploy.dashboards.promql import MODEL, RANGE, STEP, TENANT, grown, quantile, rate, summed

_RATIO_STEPS = ((None, RED), (0.95, ORANGE), (OBJECTIVE, GREEN))
_CHARGED = "gearshift_charged_usd_total"
_REFERENCE = "gearshift_reference_usd_total"

_DETAIL = frame.link("Why: refusals and shifts", frame.SHIFTING, "model")
_QUEUES = frame.link("Where the time goes", frame.LANES, "model")


def build() -> model.Dashboard:
    """The dashboard to start from."""
    return frame.board(
        frame.OVERVIEW,
        "Gearshift: overview",
        "Are the promises kept, what does it cost, and is the server well.",
        {
            "Are the promises kept": [*_figures(), *_promises()],
            "What it costs": _costs(),
            "Is it well": _health(),
        },
        tenants=True,
        onward=frame.link("Why: refusals and shifts", frame.SHIFTING),
    )


def _figures() -> list[frame.Panel]:
    saved_deadlines = promql.attainment(MODEL, TENANT, over=RANGE)
    return [
        number(
            "Deadlines kept",
            "Requests with a deadline that were answered in time, of those whose caller did not "
            "let the deadline give way, over the whole time range. Missed (504) and shed (429) "
            "ones, and those that an error of the server's own broke, count against it. The "
            "objective of the alerts is 99 %.",
            now(saved_deadlines),
            unit="percentunit",
            steps=_RATIO_STEPS,
            none="No request had a deadline",
        ).data_links([frame.link("By tenant", frame.TENANTS)]),
        number(
            "Effective accuracy, over all",
            "The accuracy on the card of each answer that came in time, summed, over every request "
            "that could have been answered: one that was refused or late counts as wrong. All "
            "tenants together, whole time range.",
            now(promql.accuracy_over_all(over=RANGE)),
            unit="percentunit",
        ),
        number(
            "Effective accuracy, answered",
            "The mean accuracy on the cards of what answered, over answered requests alone. Set "
            "beside the figure over all it tells whether the loss is in the variants or in "
            "refusals. All tenants together, whole time range.",
            now(promql.accuracy_over_answered(over=RANGE)),
            unit="percentunit",
        ),
        number(
            "Predictions that held",
            "Answers that came within the latency that their callers were told. It should not be "
            "below the promised percentile, 99 % by default. All tenants together, whole time "
            "range.",
            now(promql.coverage(MODEL, over=RANGE)),
            unit="percentunit",
            steps=_RATIO_STEPS,
        ).data_links([frame.link("By variant", frame.VARIANTS)]),
        number(
            "Saved against the reference",
            "What the same requests would have been charged on the reference variant, less what "
            "they were charged, as a share. Below zero, shifting costs more than it saves.",
            now(_saved_share(RANGE)),
            unit="percentunit",
            steps=((None, RED), (0, GREEN)),
        ),
        number(
            "Requests a second",
            "Every request to infer that came in lately, however it ended.",
            now(rate("gearshift_requests_total", MODEL, TENANT)),
            unit="reqps",
        ).data_links([frame.link("By variant", frame.SHIFTING)]),
    ]


def _promises() -> list[frame.Panel]:
    accuracy = lines(
        "Effective accuracy",
        "Over all: answers in time, weighted by the accuracy on their cards, over every request "
        "that could have been answered. Answered: over answered requests alone. Reference: the "
        "accuracy of the model's reference variant. All tenants together.",
        query(promql.accuracy_over_all(by="model"), "{{model}} over all"),
        query(promql.accuracy_over_answered(by="model"), "{{model}} answered"),
        query(
            summed("gearshift_reference_accuracy", MODEL, by="model", function="max"),
            "{{model}} reference",
        ),
        query(
            summed("gearshift_accuracy_floor", MODEL, by="model", function="max"),
            "{{model}} operator's floor",
        ),
        unit="percentunit",
        least=None,
    ).data_links([_DETAIL])
    latency = lines(
        "Latency by outcome",
        "Median and 99th percentile from a request's last byte to its answer, by how the request "
        "ended. With tracing on, the dots are traced requests. All tenants together.",
        query(
            quantile(0.99, "gearshift_request_seconds", MODEL, by="outcome"),
            "{{outcome}} p99",
            exemplars=True,
        ),
        query(quantile(0.5, "gearshift_request_seconds", MODEL, by="outcome"), "{{outcome}} p50"),
        unit="s",
    ).data_links([frame.link("Where the time goes", frame.LANES)])
    kept = lines(
        "Deadlines kept, over time",
        "Share of the requests with a deadline that were answered in time, by model; requests "
        "whose caller let the deadline give way are left out. The dashed line is the objective.",
        query(promql.attainment(MODEL, TENANT, by="model"), "{{model}}"),
        unit="percentunit",
        most=1,
        none="No request had a deadline",
    ).data_links([_QUEUES, _DETAIL])
    outcomes = lines(
        "Requests by outcome",
        "Requests a second by how they ended: ok, or an error's code.",
        query(rate("gearshift_requests_total", MODEL, TENANT, by="outcome"), "{{outcome}}"),
        unit="reqps",
        colours={"ok": GREEN, "deadline-passed": RED, "overloaded": ORANGE},
    ).data_links([frame.link("By tenant", frame.TENANTS)])
    refusals = lines(
        "Refusals by constraint",
        "Decisions a second that refused, by each constraint that kept a variant from answering: "
        "what callers ask for and the store cannot give, at all or under this load. All tenants "
        "together.",
        query(rate("gearshift_constraint_misses_total", MODEL, by="constraint"), "{{constraint}}"),
        unit="ops",
        none="Nothing was refused",
    ).data_links([frame.link("Why", frame.SHIFTING)])
    budget = lines(
        "How fast the error budget burns",
        "Deadlines not kept as a multiple of what the objective of 99 % allows, over the windows "
        "that the alerts use: 14.4 over 1 h and 5 min pages, 6 over 6 h and 30 min as well. Needs "
        "the recording rules. All tenants together.",
        *(
            query(
                f"(1 - avg by (model) (gearshift:attainment:ratio_rate{window}{{{MODEL}}}))"
                f" / {1 - OBJECTIVE:.2g}",
                f"{{{{model}}}} {window}",
            )
            for window in ("5m", "30m", "1h", "6h")
        ),
        unit="x",
        none="No deadlines, or no recording rules",
    )
    return [
        objective(kept, (None, GREEN), (OBJECTIVE, GREEN)),
        accuracy,
        latency,
        stacked(outcomes),
        stacked(refusals),
        objective(budget, (None, GREY), (6, ORANGE), (14.4, RED)),
    ]


def _costs() -> list[frame.Panel]:
    charged, reference = grown(_CHARGED, MODEL), grown(_REFERENCE, MODEL)
    hour = "3600 * "
    return [
        number(
            "Charged",
            "What answered requests were charged over the time range.",
            now(grown(_CHARGED, MODEL, TENANT)),
            unit="currencyUSD",
            decimals=6,
            width=6,
        ).data_links([frame.link("By tenant", frame.TENANTS)]),
        number(
            "Saved",
            "What the same requests would have been charged on the reference variant, less what "
            "they were charged, over the time range. All tenants together.",
            now(f"{reference} - {charged}"),
            unit="currencyUSD",
            decimals=6,
            steps=((None, RED), (0, GREEN)),
            width=6,
        ),
        lines(
            "Charged, and what the reference would have cost",
            "USD an hour at the present rate: what answered requests are charged, and what they "
            "would be on the reference variant. The gap is what shifting saves. All tenants "
            "together.",
            query(hour + rate(_CHARGED, MODEL, by="model"), "{{model}} charged"),
            query(hour + rate(_REFERENCE, MODEL, by="model"), "{{model}} on the reference"),
            unit="currencyUSD",
            height=10,
        ).data_links([frame.link("Cost by variant", frame.VARIANTS, "model")]),
    ]


def _health() -> list[frame.Panel]:
    return [
        listing(
            "Alerts that fire",
            "From the rules in deploy/prometheus. Each alert's runbook says what to do.",
            rows('max by (alertname, severity, model, variant) (ALERTS{alertstate="firing"})'),
            columns={
                "alertname": "Alert",
                "severity": "Severity",
                "model": "Model",
                "variant": "Variant",
            },
            none="No alert fires",
        ),
        states(
            "Store, ledger, workers",
            "Whether the store can be read, whether keys and what they spent can be, and whether "
            "each worker answers.",
            query("min(gearshift_store_readable)", "store"),
            query("min(gearshift_ledger_up)", "ledger"),
            query(summed("gearshift_worker_up", by="worker", function="min"), "worker {{worker}}"),
            named={0: ("down", RED), 1: ("up", GREEN)},
        ),
        listing(
            "What runs",
            "The version of each server that is scraped.",
            rows("max by (instance, version, python) (gearshift_build_info)"),
            columns={"instance": "Instance", "version": "Gearshift", "python": "Python"},
            none="Nothing is scraped",
            height=5,
        ),
        number(
            "Models",
            "Models with at least one variant that is ready, of those in the store.",
            now("count(max by (model) (gearshift_variant_ready) > 0)", "ready"),
            now("count(max by (model) (gearshift_variant_ready))", "in the store"),
            unit="short",
            steps=((None, BLUE),),
            none="Nothing is served",
        ),
        number(
            "Worker restarts",
            "Times that a worker process was started again in the time range.",
            now(grown("gearshift_worker_restarts_total")),
            unit="short",
            steps=((None, GREEN), (0.5, ORANGE)),
            decimals=0,
        ),
        number(
            "Lanes lost",
            "Times that a lane ended or was given up in the time range.",
            now(grown("gearshift_lane_losses_total")),
            unit="short",
            steps=((None, GREEN), (0.5, ORANGE)),
            decimals=0,
        ).data_links([frame.link("Lanes", frame.LANES)]),
    ]


def _saved_share(over: str = STEP) -> str:
    reference = grown(_REFERENCE, MODEL, over=over)
    return f"1 - {grown(_CHARGED, MODEL, over=over)} / ({reference} > 0)"
