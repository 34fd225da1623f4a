"""`make bench-bound`: decisions beside the best that is possible, by `gearshift simulate`.

Six variants, one deadline, two lanes; traffic that is steady, bursty, and jumps between quiet and
busy. The bound knows the future; the share of the gain is of what it has over the best single
variant, in hindsight.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench import pages

_PAGE = Path("docs/how-to/simulate.md")
_REQUESTS, _SEEDS = 10_000, 3
# Accuracy, and ms a row beyond 0.1 ms a batch.
_VARIANTS = {
    "a": (0.935, 2.05),
    "b": (0.9348, 1.05),
    "c": (0.933, 0.57),
    "d": (0.928, 0.33),
    "e": (0.915, 0.13),
    "f": (0.88, 0.05),
}
_TRACES = ("poisson", "gamma:cv=4", "map")
_LOADS = "0.8,1.5,2.5"
_OTHERS = ("slackfit", "model_switching")
_POLICIES = ("gearshift", *_OTHERS, *(f"static:{name}" for name in _VARIANTS))


def variants() -> dict[str, Any]:
    """The table that `--variants` takes."""
    return {
        "variants": [
            {
                "name": name,
                "accuracy": accuracy,
                "latency_ms": {str(rows): round(0.1 + rows * ms, 4) for rows in (1, 8, 32)},
            }
            for name, (accuracy, ms) in _VARIANTS.items()
        ]
    }


def simulated(trace: str, requests: int, seeds: int, jobs: int | None) -> dict[str, Any]:
    """What `gearshift simulate --json` says of it.

    Raises:
        subprocess.CalledProcessError: it does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "six.json")
        file.write_text(json.dumps(variants()))
        command = [
            *(sys.executable, "-m", "gateway.cli", "simulate", "--variants", str(file)),
            *("--trace", trace, "--load", _LOADS, "--lanes", "2", "--max-latency-ms", "30"),
            *("--requests", str(requests), "--seeds", str(seeds), "--json"),
            *("--policies", ",".join(_POLICIES)),
            *(("--jobs", str(jobs)) if jobs else ()),
        ]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def rows_of(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each load: effective accuracy of all requests in %, and the share of the gain."""
    rows = []
    for run in told["runs"]:
        policies = run["policies"]

        def accuracy(name: str, of: Mapping[str, Any] = policies) -> str:
            return f"{100 * of[name]['effective_accuracy_all']['mean']:.3f}"

        share = policies["gearshift"]["share_of_gain"]
        rows.append(
            (
                told["trace"],
                f"{run['load']:g}",
                f"{100 * run['bound']['mean']:.3f}",
                accuracy("gearshift"),
                f"{100 * policies['gearshift']['attainment']['mean']:.2f}",
                *map(accuracy, _OTHERS),
                accuracy(run["best_single_variant"]),
                "too little to gain"
                if share is None
                else f"{100 * share['mean']:.0f} ± {100 * share['half_interval']:.0f} %",
            )
        )
    return rows


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bound", description=__doc__)
    parser.add_argument("--requests", type=int, default=_REQUESTS)
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    parser.add_argument("--jobs", type=int, help="replays at a time")
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    wanted = parser.parse_args()
    ran = pages.here()
    rows = [
        row
        for trace in _TRACES
        for row in rows_of(simulated(trace, wanted.requests, wanted.seeds, wanted.jobs))
    ]
    head = (
        *("arrivals", "load", "bound", "gearshift", "its attainment %", *_OTHERS),
        *("best single variant", "share of the gain"),
    )
    text = (
        f"{ran} {wanted.seeds} draws of {wanted.requests:,} requests.\n\n{pages.table(head, rows)}"
    )
    print(text)
    whole = (wanted.requests, wanted.seeds) == (_REQUESTS, _SEEDS)
    pages.keep(wanted.docs, _PAGE, "make bench-bound", text, whole=whole)


if __name__ == "__main__":
    main()
