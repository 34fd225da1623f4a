"""Lanes and queues: how busy the machine is, who waits, and where a request's time goes."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from deploy.dashboards import frame, promql
from deploy.dashboards.panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    bars,
    dashed,
    lines,
    now,
    number,
    objective,
    query,
    stacked,
    states,
)
from deploy.dashboards.promql import MODEL, OK, STEP, grown, mean, quantile, rate, share, summed

_NAME = "{{model}} {{variant}}"
_MIX = frame.link("Which variant serves", frame.SHIFTING, "model")
_PARTS = ("queue", "infer", "overhead")


def build() -> model.Dashboard:
    """The machine and its queues."""
    return frame.board(
        frame.LANES,
        "Gearshift: lanes and queues",
        "How busy the lanes are, who waits for them, and where a request's time goes. Nothing "
        "here is told apart by tenant.",
        {
            "Lanes": [*_figures(), *_lanes()],
            "Queues": _queues(),
            "Where the time goes": _times(),
            "Batches": _batches(),
            "Memory and processes": _memory(),
        },
        tenants=False,
        onward=frame.link("What became of the promises", frame.OVERVIEW),
    )


def _figures() -> list[frame.Panel]:
    return [
        number(
            "Lanes",
            "Execution slots: each runs one batch at a time.",
            now(summed("gearshift_lanes")),
            unit="short",
        ),
        number(
            "Busy",
            "Lanes that run a batch.",
            now(summed("gearshift_busy_lanes")),
            unit="short",
        ),
        number(
            "Utilisation now",
            "The share of the lanes' time in which they ran batches lately.",
            now(promql.utilisation()),
            unit="percentunit",
            steps=((None, GREEN), (0.8, ORANGE), (0.95, RED)),
        ),
        number(
            "Waiting now",
            "Requests that wait for a lane, or for a variant that is being loaded.",
            now(summed("gearshift_queued_requests", MODEL)),
            unit="short",
        ),
        number(
            "Oldest",
            "Age of the request that has waited longest; 0 where none waits.",
            now(summed("gearshift_queue_age_seconds", MODEL, function="max")),
            unit="s",
        ),
        number(
            "Lost lanes",
            "Lanes that ended or hung and are being restored.",
            now(summed("gearshift_lost_lanes")),
            unit="short",
            steps=((None, GREEN), (1, RED)),
        ),
    ]


def _lanes() -> list[frame.Panel]:
    return [
        objective(
            lines(
                "Utilisation",
                "The share of the lanes' time in which they ran batches. Near 100 % queues grow, "
                "and smaller variants take over.",
                query(promql.utilisation(), "lanes"),
                unit="percentunit",
                most=1,
            ).data_links([frame.link("Which variant serves", frame.SHIFTING)]),
            (None, GREEN),
            (0.95, ORANGE),
        ),
        dashed(
            lines(
                "Lanes, busy and lost",
                "Lanes that run a batch and lanes that are lost, at each scrape; dashed, all that "
                "there are.",
                query(summed("gearshift_busy_lanes"), "busy"),
                query(summed("gearshift_lost_lanes"), "lost"),
                query(summed("gearshift_lanes"), "lanes"),
                unit="short",
                colours={"busy": BLUE, "lost": RED},
            ),
            "lanes",
        ),
    ]


def _queues() -> list[frame.Panel]:
    return [
        stacked(
            lines(
                "Requests that wait",
                "For a lane, or for a variant that is being loaded, at each scrape.",
                query(summed("gearshift_queued_requests", MODEL, by="model"), "{{model}}"),
                unit="short",
            ).data_links([_MIX])
        ),
        lines(
            "Age of the oldest",
            "How long the request that has waited longest has done so; 0 where none waits. One "
            "that grows without end belongs to a request without a deadline.",
            query(
                summed("gearshift_queue_age_seconds", MODEL, by="model", function="max"),
                "{{model}}",
            ),
            unit="s",
        ).data_links([_MIX]),
    ]


def _times() -> list[frame.Panel]:
    parts = lines(
        "Mean time of an answer, by part",
        "Waiting for a lane, the batch that it ran in, and the rest: parsing, deciding, encoding. "
        "On top of each other they are the mean time of an answer.",
        *(query(mean(f"gearshift_{part}_seconds", MODEL), part) for part in _PARTS),
        unit="s",
    )
    return [
        stacked(parts),
        lines(
            "Answers, p50 and p99",
            "From a request's last byte to its answer, by model.",
            *(
                query(
                    quantile(part, "gearshift_request_seconds", MODEL, OK, by="model"),
                    f"{{{{model}}}} p{100 * part:g}",
                    exemplars=part == 0.99,
                )
                for part in (0.99, 0.5)
            ),
            unit="s",
        ).data_links([_MIX]),
        *(
            lines(
                title,
                text,
                query(
                    quantile(0.99, f"gearshift_{part}_seconds", MODEL, by="model"), "{{model}} p99"
                ),
                query(
                    quantile(0.5, f"gearshift_{part}_seconds", MODEL, by="model"), "{{model}} p50"
                ),
                unit="s",
                width=8,
            )
            for part, title, text in (
                ("queue", "Waiting", "Time that answered requests waited for a lane."),
                ("infer", "Running", "Time of the batch that an answered request ran in."),
                ("overhead", "The rest", "An answered request's time without queue and batch."),
            )
        ),
    ]


def _batches() -> list[frame.Panel]:
    each = "model, variant"
    return [
        lines(
            "Rows of a batch, mean",
            "How many rows run together: more means more throughput from the same lanes.",
            query(mean("gearshift_batch_rows", MODEL, by=each), _NAME),
            unit="short",
            width=8,
        ),
        lines(
            "Rows of a batch, p99",
            "How close batches come to the largest that is allowed.",
            query(quantile(0.99, "gearshift_batch_rows", MODEL, by=each), _NAME),
            unit="short",
            width=8,
        ),
        lines(
            "Batches",
            "Batches a second, by the variant that ran them.",
            query(rate("gearshift_batch_rows_count", MODEL, by=each), _NAME),
            unit="ops",
            width=8,
        ),
    ]


def _memory() -> list[frame.Panel]:
    cache = "gearshift_response_cache_total"
    hits = share(rate(cache, MODEL, 'outcome="hit"', by="model"), rate(cache, MODEL, by="model"))
    losses = lines(
        "Lanes lost, workers restarted",
        "Lanes that ended or were given up, and workers that were started again.",
        query(grown("gearshift_lane_losses_total", over=STEP), "lanes lost"),
        query(grown("gearshift_worker_restarts_total", over=STEP), "workers restarted"),
        unit="short",
        width=8,
    )
    records = lines(
        "Records lost",
        "Lines of the access log and traced requests that were given up, rather than let requests "
        "wait for them.",
        query(grown("gearshift_access_log_dropped_total", over=STEP), "access log"),
        query(grown("gearshift_traces_dropped_total", over=STEP), "traces"),
        unit="short",
        width=8,
    )
    return [
        lines(
            "Memory",
            "What the loaded variants take by their cards, on all lanes, and the response cache.",
            query(summed("gearshift_loaded_bytes"), "variants"),
            query(summed("gearshift_response_cache_bytes"), "response cache"),
            unit="bytes",
            width=8,
        ),
        lines(
            "Found in the response cache",
            "Share of the look-ups that found an answer.",
            query(hits, "{{model}}"),
            unit="percentunit",
            most=1,
            width=8,
            none="There is no response cache",
        ),
        bars(losses),
        states(
            "Workers",
            "Whether each worker takes requests and answers the others.",
            query(summed("gearshift_worker_up", by="worker", function="min"), "worker {{worker}}"),
            named={0: ("down", RED), 1: ("up", GREEN)},
            width=16,
        ),
        bars(records),
    ]
