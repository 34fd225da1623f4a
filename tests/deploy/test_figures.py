"""What the panels show is what their titles say: figures worked out by hand, of made-up series."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.boards import queries
from tests.deploy.live import put
from tests.needs import program

# What each grows by in a second: charges in USD; requests of which half take up to 0.1 s, 98 up to
# 1 s and the others up to 3 s; batches of which half have one row; the parts of answers in seconds.
_GROWS = {
    "gearshift_charged_usd_total": {"": 2},
    "gearshift_reference_usd_total": {"": 8},
    "gearshift_request_seconds_bucket": {"0.1": 50, "1": 98, "3": 100, "+Inf": 100},
    "gearshift_batch_rows_bucket": {"1": 25, "3": 49, "7": 50, "+Inf": 50},
    "gearshift_batch_rows_sum": {"": 150},
    "gearshift_batch_rows_count": {"": 50},
    "gearshift_queue_seconds_sum": {"": 20},
    "gearshift_queue_seconds_count": {"": 20},
    "gearshift_infer_seconds_sum": {"": 40},
    "gearshift_infer_seconds_count": {"": 20},
    "gearshift_overhead_seconds_sum": {"": 10},
    "gearshift_overhead_seconds_count": {"": 20},
}
_LABELS = 'instance="one", model="m", outcome="ok", tenant="t", variant="v"'

_GAP = "Charged, and what the reference would have cost"
_PARTS = "Mean time of an answer, by part"
_OF_VARIANT = '{model="m", variant="v"}'

# Of each dashboard, panel and legend: the labels of its one series, and its figure. What grew
# did so for the 60 s that the dashboard shows.
FIGURES = {
    ("overview", "Charged", ""): ("{}", 120),
    ("overview", "Saved", ""): ("{}", 360),
    ("overview", "Saved against the reference", ""): ("{}", 0.75),
    ("overview", _GAP, "{{model}} charged"): ('{model="m"}', 7200),
    ("overview", _GAP, "{{model}} on the reference"): ('{model="m"}', 28800),
    ("overview", "Latency by outcome", "{{outcome}} p99"): ('{outcome="ok"}', 2),
    ("overview", "Latency by outcome", "{{outcome}} p50"): ('{outcome="ok"}', 0.1),
    ("lanes", _PARTS, "queue"): ("{}", 1),
    ("lanes", _PARTS, "infer"): ("{}", 2),
    ("lanes", _PARTS, "overhead"): ("{}", 0.5),
    ("lanes", "Rows of a batch, mean", "{{model}} {{variant}}"): (_OF_VARIANT, 3),
    ("lanes", "Rows of a batch, p99", "{{model}} {{variant}}"): (_OF_VARIANT, 5),
    ("lanes", "Batches", "{{model}} {{variant}}"): (_OF_VARIANT, 50),
}


def _series() -> list[dict[str, str]]:
    found = []
    for name, grows in _GROWS.items():
        for bound, growth in grows.items():
            labels = f'{_LABELS}, le="{bound}"' if bound else _LABELS
            found.append({"series": f"{name}{{{labels}}}", "values": f"0+{growth}x300"})
    return found


@pytest.mark.parametrize("shown", FIGURES, ids=": ".join)
def test_a_panel_shows_what_its_title_says(shown: tuple[str, str, str], tmp_path: Path) -> None:
    (expression,) = [
        asked.expression for asked in queries() if (asked.board, asked.where, asked.legend) == shown
    ]
    labels, figure = FIGURES[shown]
    wanted = {"labels": labels, "value": figure}
    test = {
        "interval": "1s",
        "input_series": _series(),
        "promql_expr_test": [{"expr": put(expression), "eval_time": "4m", "exp_samples": [wanted]}],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}), "utf-8")
    command = [program("promtool", "prometheus"), "test", "rules", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr + ran.stdout
