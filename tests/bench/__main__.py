"""`python -m tests.bench`: every benchmark, as tables, and as JSON beside them."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from compressors import machine
from tests.bench.decision import decisions
from tests.bench.overhead import overhead
from tests.bench.throughput import throughput


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--models", type=Path, default=Path("models"), help="the demo's store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", choices=["decision", "overhead", "throughput"])
    wanted = parser.parse_args()
    console = Console(width=120)
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe().model_dump(),
        "python": platform.python_version(),
    }
    if wanted.only in (None, "decision"):
        results["decision_us"] = found = decisions()
        _decisions(console, found)
    if wanted.only in (None, "overhead"):
        results["overhead"] = overhead(rounds=wanted.rounds, seconds=wanted.seconds)
        _overhead(console, results["overhead"])
    if wanted.only in (None, "throughput"):
        if not (wanted.models / "digits").is_dir():
            command = [Path(sys.executable).with_name("gearshift"), "compress", "digits"]
            subprocess.run([*command, "--out", wanted.models], check=True)
        results["throughput"] = {
            str(rows): throughput(
                wanted.models,
                "digits",
                ["fp32", "int8"],
                rounds=wanted.rounds,
                seconds=wanted.seconds,
                rows=rows,
            )
            for rows in (1, 8)
        }
        _throughput(console, results["throughput"])
    wanted.out.mkdir(parents=True, exist_ok=True)
    file = wanted.out / f"{results['date'].replace(':', '')}.json"
    file.write_text(json.dumps(results, indent=1))
    console.print(f"written to {file}")


def _decisions(console: Console, found: dict[str, float]) -> None:
    table = Table("one decision, 20 variants", "median µs")
    for name, us in found.items():
        table.add_row(name, f"{us:.1f}")
    console.print(table)


def _overhead(console: Console, found: dict[str, Any]) -> None:
    for connections, by_server in found.items():
        table = Table(
            f"{connections} connection(s)",
            *("requests/s", "p50 ms", "p99 ms", "to Starlette, median [min, max]", "errors"),
        )
        for name, row in by_server.items():
            table.add_row(
                name,
                f"{row['requests_per_second']:,.0f}",
                f"{row['p50_ms']:.2f}",
                f"{row['p99_ms']:.2f}",
                f"{row['ratio_to_starlette']:.2f} [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}]",
                f"{row['errors']:.0f}",
            )
        console.print(table)


def _throughput(console: Console, found: dict[str, Any]) -> None:
    for rows, by_variant in found.items():
        table = Table(
            f"{rows} row(s) a request",
            *("best batch", "loop rows/s", "gateway rows/s", "ratio [min, max]", "errors"),
        )
        for name, row in by_variant.items():
            table.add_row(
                name,
                str(row["best_batch"]),
                f"{row['loop_rows_per_second']:,.0f}",
                f"{row['gateway_rows_per_second']:,.0f}",
                f"{row['ratio']:.2f} [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}]",
                f"{row['errors']:.0f}",
            )
        console.print(table)


main()
