"""Metrics: every one, from their declarations, and the rules that are made of them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from gateway.metrics.declared import LABELS, METRICS, Declared
from tests.docs.pages import table

RULES = Path(__file__).parents[3] / "deploy" / "prometheus"

# The first metric of each part of the declarations, and what the part is called.
PARTS = {
    "requests_total": "Requests",
    "deadlines_total": "Promises",
    "charged_usd_total": "Cost",
    "batch_seconds": "Lanes and queues",
    "variant_info": "Variants",
    "key_requests_total": "Keys",
    "worker_up": "The server",
}


def text() -> str:
    part = ""

    def part_of(metric: Declared) -> str:
        nonlocal part
        part = PARTS.get(metric.name, part)
        return part

    page = _INTRODUCTION
    for title, metrics in groupby(METRICS, part_of):
        rows = [(_name(m), m.kind, m.text) for m in metrics]
        page += f"\n## {title}\n\n" + table(("metric and labels", "type", "says"), rows)
    page += "\n## Labels\n\n" + table(
        ("label", "values"), [(f"`{n}`", t) for n, t in LABELS.items()]
    )
    page += "\n## Recorded\n\n" + _RECORDED
    page += table(("series", "is"), [(f"`{r['record']}`", f"`{r['expr']}`") for r in _rules()])
    return page


def _name(metric: Declared) -> str:
    return f"`{metric.full_name}`" + (f" {', '.join(metric.labels)}" if metric.labels else "")


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "rules.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


_INTRODUCTION = """# Metrics

What `GET /metrics` shows: Prometheus's text format, or OpenMetrics where it is asked for, with
exemplars that name the trace of a request whose trace is recorded.
[Observe it](../how-to/observe.md) says how to use them.

Label values come from the store, the code and the operator, never from a request. With
`--workers` every series has the label `worker` too; sum counters, `lanes`, `busy_lanes`
and `queued_requests` over it; of `queue_age_seconds` take the largest; what describes the store
(`card_…`, `variant_info`, `reference_accuracy`) is the same in each.

A histogram has `_bucket`, `_sum` and `_count`. Those of seconds reach from 0.2 ms to 60 s.
"""
_RECORDED = """By the rules of `deploy/prometheus/rules.yml`, by job and, but for lanes, by model.
Effective accuracy has two definitions in print, and both are here: over *all* requests that could
have been answered, where only answers in time count, and over *answered* ones.

"""
