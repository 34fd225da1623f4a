"""Tenants: what each class of keys asks for, gets, and is charged."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from deploy.dashboards import frame, promql
from deploy.dashboards.panels import (
    GREEN,
    OBJECTIVE,
    lines,
    listing,
    objective,
    query,
    rows,
    stacked,
)
from deploy.dashboards.promql import MODEL, OK, RANGE, TENANT, grown, rate

_REQUESTS = "gearshift_requests_total"
_CHARGED = "gearshift_charged_usd_total"
_MIX = frame.link("Which variant serves it", frame.SHIFTING, "tenant")
_PROMISES = frame.link("Overview of this tenant", frame.OVERVIEW, "tenant")


def build() -> model.Dashboard:
    """One tenant beside the other."""
    return frame.board(
        frame.TENANTS,
        "Gearshift: tenants",
        "What each class of keys asks for, gets, and is charged. A tenant is what `gearshift keys "
        "create --tenant` says; without keys there is one, open.",
        {"In this time range": [_table()], "Over time": _over_time(), "Keys": _keys()},
        tenants=True,
        onward=frame.link("All tenants together", frame.OVERVIEW),
    )


def _table() -> frame.Panel:
    whole = (MODEL, TENANT)
    return listing(
        "Tenants",
        "Requests, how many were answered, deadlines and accuracy floors kept, and what was "
        "charged, over the whole time range.",
        rows(grown(_REQUESTS, *whole, by="tenant")),
        rows(
            promql.share(
                grown(_REQUESTS, *whole, OK, by="tenant"), grown(_REQUESTS, *whole, by="tenant")
            )
        ),
        rows(promql.attainment(*whole, by="tenant", over=RANGE)),
        rows(promql.floors_kept(*whole, by="tenant", over=RANGE)),
        rows(grown(_CHARGED, *whole, by="tenant")),
        columns={
            "tenant": "Tenant",
            "Value #A": "Requests",
            "Value #B": "Answered",
            "Value #C": "Deadlines kept",
            "Value #D": "Floors kept",
            "Value #E": "Charged",
        },
        units={
            "Requests": "short",
            **dict.fromkeys(("Answered", "Deadlines kept", "Floors kept"), "percentunit"),
            "Charged": "currencyUSD",
        },
        links={"Tenant": frame.link("Overview", frame.OVERVIEW, "tenant", tabular=True)},
        sorted_by="Requests",
        width=24,
        height=6,
    )


def _over_time() -> list[frame.Panel]:
    kept = lines(
        "Deadlines kept",
        "Share of the requests with a deadline that were answered in time, by tenant; requests "
        "whose caller let the deadline give way are left out. The dashed line is the objective.",
        query(promql.attainment(MODEL, TENANT, by="tenant"), "{{tenant}}"),
        unit="percentunit",
        most=1,
        none="No request had a deadline",
    ).data_links([_PROMISES])
    return [
        stacked(
            lines(
                "Requests by tenant",
                "Requests to infer a second, however they ended.",
                query(rate(_REQUESTS, MODEL, TENANT, by="tenant"), "{{tenant}}"),
                unit="reqps",
            ).data_links([_MIX])
        ),
        objective(kept, (None, GREEN), (OBJECTIVE, GREEN)),
        lines(
            "Not answered",
            "Requests a second that were not answered, by tenant, the error's code and the verdict "
            "of the decision, if there was one.",
            query(
                rate(_REQUESTS, MODEL, TENANT, 'outcome!="ok"', by="tenant, outcome, reason"),
                "{{tenant}} {{outcome}} ({{reason}})",
            ),
            unit="reqps",
            none="Every request was answered",
        ).data_links([_PROMISES]),
        lines(
            "Accuracy floors kept",
            "Answers to requests with an accuracy floor that kept it; the others' callers let it "
            "give way.",
            query(promql.floors_kept(MODEL, TENANT, by="tenant"), "{{tenant}}"),
            unit="percentunit",
            most=1,
            none="No request had an accuracy floor",
        ).data_links([_PROMISES]),
        stacked(
            lines(
                "Variants by tenant",
                "Answered requests a second, by tenant and the variant that answered.",
                query(
                    rate(_REQUESTS, MODEL, TENANT, OK, by="tenant, model, variant"),
                    "{{tenant}} {{model}} {{variant}}",
                ),
                unit="reqps",
            ).data_links([frame.link("Which variant serves", frame.SHIFTING, "model", "tenant")])
        ),
        lines(
            "Charged by tenant",
            "USD an hour at the present rate.",
            query(f"3600 * {rate(_CHARGED, MODEL, TENANT, by='tenant')}", "{{tenant}}"),
            unit="currencyUSD",
        ).data_links([_PROMISES]),
    ]


def _keys() -> list[frame.Panel]:
    return [
        lines(
            "Requests by key",
            "Requests a second at the door, for the ten busiest keys: entered, or the code of what "
            "kept them out. Not told apart by model; needs keys.",
            query(
                f"topk(10, {rate('gearshift_key_requests_total', by='key, outcome')})",
                "{{key}} {{outcome}}",
            ),
            unit="reqps",
            none="No request had a key",
        ),
        lines(
            "Charged by key",
            "USD an hour at the present rate, for the ten keys that are charged most. Not told "
            "apart by model; needs keys.",
            query(
                f"topk(10, 3600 * {rate('gearshift_key_charged_usd_total', by='key')})", "{{key}}"
            ),
            unit="currencyUSD",
            none="No request had a key",
        ),
    ]
