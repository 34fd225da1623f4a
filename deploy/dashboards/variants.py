"""Variants: what their cards say, how they do beside that, and whether predictions hold."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from deploy.dashboards import frame, promql
from deploy.dashboards.panels import (
    GREEN,
    GREY,
    ORANGE,
    RED,
    Query,
    bars,
    dashed,
    lines,
    listing,
    objective,
    points,
    query,
    rows,
    states,
)
from deploy.dashboards.promql import MODEL, OK, STEP, grown, quantile, rate, summed

_EACH = "model, variant"
_NAME = "{{model}} {{variant}}"
_SERVES = frame.link("When it serves", frame.SHIFTING, "model")


def build() -> model.Dashboard:
    """The variants, one beside the other."""
    return frame.board(
        frame.VARIANTS,
        "Gearshift: variants",
        "What the cards say, how the variants do beside that, and whether predictions hold. "
        "Nothing here is told apart by tenant.",
        {
            "Cards": _cards(),
            "Beside the card": _live(),
            "Calibration": _calibration(),
            "Health": _health(),
        },
        tenants=False,
        onward=frame.link("When each of them serves", frame.SHIFTING),
    )


def _card(metric: str, *selectors: str) -> str:
    """A figure of the card; the workers of a server all tell the same."""
    return summed(metric, MODEL, *selectors, by=_EACH, function="max")


def _cards() -> list[frame.Panel]:
    def named(expression: str) -> str:
        return f'label_join({expression}, "build", " ", "model", "variant")'

    latency = _card("gearshift_card_latency_seconds", 'quantile="0.99"')
    accuracy = _card("gearshift_card_accuracy", 'bound="point"')
    every = f"{_EACH}, engine, recipe, digest"
    facts = summed("gearshift_variant_info", MODEL, by=every, function="max")
    return [
        points(
            "Frontier",
            "Accuracy against the 99th percentile of a single row's latency, as the cards have "
            "them: higher and further left is better. A variant below and to the right of another "
            "is worth it for its cost alone.",
            rows(named(latency)),
            rows(named(accuracy)),
            names=("Latency, p99", "Accuracy"),
            units=("s", "percentunit"),
            one="build",
            width=10,
            height=12,
        ),
        listing(
            "Cards",
            "Accuracy with its 95 % interval, latency of one row alone, what a million such rows "
            "cost, and the build that is served.",
            rows(accuracy),
            rows(_card("gearshift_card_accuracy", 'bound="low"')),
            rows(_card("gearshift_card_accuracy", 'bound="high"')),
            rows(_card("gearshift_card_latency_seconds", 'quantile="0.5"')),
            rows(_card("gearshift_card_latency_seconds", 'quantile="0.95"')),
            rows(latency),
            rows(_card("gearshift_card_cost_usd_per_million")),
            rows(facts),
            columns={
                "model": "Model",
                "variant": "Variant",
                "Value #A": "Accuracy",
                "Value #B": "from",
                "Value #C": "to",
                "Value #D": "p50",
                "Value #E": "p95",
                "Value #F": "p99",
                "Value #G": "USD per million",
                "engine": "Engine",
                "recipe": "Recipe",
                "digest": "Build",
            },
            units={
                **dict.fromkeys(("Accuracy", "from", "to"), "percentunit"),
                **dict.fromkeys(("p50", "p95", "p99"), "s"),
                "USD per million": "currencyUSD",
            },
            links={"Variant": frame.link("When it serves", frame.SHIFTING, "model", tabular=True)},
            sorted_by="Accuracy",
            width=14,
            height=12,
            none="No variant is served",
        ),
    ]


def _live() -> list[frame.Panel]:
    def beside(share: float) -> list[Query]:
        live = quantile(share, "gearshift_batch_seconds", MODEL, by=_EACH)
        card = _card("gearshift_card_latency_seconds", f'quantile="{share:g}"')
        return [query(live, _NAME), query(card, _NAME + " card")]

    charged = rate("gearshift_charged_usd_total", MODEL, by=_EACH)
    answered = rate("gearshift_requests_total", MODEL, OK, by=_EACH)
    batches = [
        dashed(
            lines(
                f"Batch time, p{100 * share:g}",
                f"The {words} of a batch on its lane; dashed, the card's for a batch of one row. "
                "Larger batches take longer, so a line above its dashes is no fault by itself: "
                "look at the calibration below.",
                *beside(share),
                unit="s",
            ).data_links([_SERVES]),
            ".* card$",
        )
        for share, words in ((0.99, "99th percentile"), (0.5, "median"))
    ]
    return [
        *batches,
        lines(
            "Latency of answers, p99",
            "From a request's last byte to its answer, waiting included, by the variant that "
            "answered.",
            query(quantile(0.99, "gearshift_request_seconds", MODEL, OK, by=_EACH), _NAME),
            unit="s",
        ).data_links([_SERVES, frame.link("Where the time goes", frame.LANES, "model")]),
        dashed(
            lines(
                "Charged per million answers",
                "What a million answers are charged at the present rate; dashed, what the card "
                "says for single rows that run alone. Batching makes it cheaper, larger requests "
                "dearer.",
                query(f"1e6 * {charged} / ({answered} > 0)", _NAME),
                query(_card("gearshift_card_cost_usd_per_million"), _NAME + " card"),
                unit="currencyUSD",
            ).data_links([_SERVES]),
            ".* card$",
        ),
    ]


def _calibration() -> list[frame.Panel]:
    ratio = "gearshift_prediction_ratio"
    held = lines(
        "Predictions that held",
        "Answers that came within the latency that their callers were told. Dashed: the "
        "percentile that was promised. Below it the gateway believes in too short a time; the "
        "rate of answers says how much that weighs.",
        query(promql.coverage(MODEL, by=_EACH), _NAME),
        query("max(gearshift_promised_percentile)", "promised"),
        unit="percentunit",
        least=None,
        most=1,
    ).data_links([frame.link("When each serves", frame.SHIFTING)])
    off = lines(
        "Actual against predicted",
        "The latency of an answer as a share of what its caller was told: the median, and the "
        "99th percentile, which should stay at 1 or below. A median far below 1 means that "
        "promises are too cautious and requests are refused that could have been served.",
        query(quantile(0.99, ratio, MODEL, by=_EACH), _NAME + " p99"),
        query(quantile(0.5, ratio, MODEL, by=_EACH), _NAME + " p50"),
        unit="percentunit",
    ).data_links([_SERVES])
    return [dashed(held, "promised"), objective(off, (None, GREEN), (1, ORANGE))]


def _health() -> list[frame.Panel]:
    faults = lines(
        "Faults",
        "Batches that failed at least in part, requests run again after that, and builds that "
        "could not be loaded or warmed.",
        *(
            query(grown(f"gearshift_{name}_total", MODEL, by=_EACH, over=STEP), f"{_NAME} {word}")
            for name, word in (
                ("batch_failures", "failed batches"),
                ("retries", "run again"),
                ("variant_load_failures", "failed loads"),
            )
        ),
        unit="short",
        none="Nothing failed",
    )
    return [
        states(
            "Breakers",
            "Whether requests are kept from a variant because it failed: open, or half-open while "
            "one batch tries it again. The worst worker is shown.",
            query(_card("gearshift_breaker"), _NAME),
            named={0: ("closed", GREEN), 1: ("half-open", ORANGE), 2: ("open", RED)},
            none="No variant is served",
        ),
        states(
            "Ready",
            "Loaded, warm and healthy, on every worker.",
            query(summed("gearshift_variant_ready", MODEL, by=_EACH, function="min"), _NAME),
            named={0: ("not ready", GREY), 1: ("ready", GREEN)},
            none="No variant is served",
        ),
        bars(faults),
    ]
