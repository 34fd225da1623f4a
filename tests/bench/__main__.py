"""`python -m tests.bench`: every benchmark, as tables, as JSON, and in docs/benchmarks."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from compressors import machine
from tests.bench import pages
from tests.bench.decision import decisions
from tests.bench.overhead import overhead
from tests.bench.throughput import throughput

_PAGE = Path("docs/benchmarks/performance.md")
_ROUNDS, _SECONDS = 5, 4.0


class Shown(NamedTuple):
    """One table, for the terminal and for the page."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the demo's store")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--seconds", type=float, default=_SECONDS)
    parser.add_argument("--only", choices=["decision", "overhead", "throughput"])
    wanted = parser.parse_args()
    console = Console(width=120)
    shown: list[Shown] = []
    ran = pages.here()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe().model_dump(),
        "python": platform.python_version(),
    }
    if wanted.only in (None, "decision"):
        results["decision_us"] = found = decisions()
        shown.append(_decisions(found))
    if wanted.only in (None, "overhead"):
        results["overhead"] = overhead(rounds=wanted.rounds, seconds=wanted.seconds)
        shown += _overhead(results["overhead"])
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
        shown += _throughput(results["throughput"])
    if wanted.only is None:
        shown.append(targets(results["decision_us"], results["overhead"], results["throughput"]))
    for one in shown:
        _printed(console, one)
    wanted.out.mkdir(parents=True, exist_ok=True)
    file = wanted.out / f"{results['date'].replace(':', '')}.json"
    file.write_text(json.dumps(results, indent=1))
    console.print(f"written to {file}")
    ran += f" The load generator shares the cores. {wanted.rounds} rounds of {wanted.seconds:g} s."
    asked = (wanted.rounds, wanted.seconds, wanted.only)
    whole = asked == (_ROUNDS, _SECONDS, None)
    pages.keep(wanted.docs, _PAGE, "make bench", _page(ran, shown), whole=whole)


def _decisions(found: dict[str, float]) -> Shown:
    rows = [(name, f"{us:.1f}") for name, us in found.items()]
    return Shown("A decision", ("one decision, 20 variants", "median µs"), rows)


def _overhead(found: dict[str, Any]) -> Iterator[Shown]:
    for connections, by_server in found.items():
        rows = [
            (
                name,
                f"{row['requests_per_second']:,.0f}",
                f"{row['p50_ms']:.2f}",
                f"{row['p99_ms']:.2f}",
                f"{row['ratio_to_starlette']:.2f} [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}]",
                f"{row['errors']:.0f}",
            )
            for name, row in by_server.items()
        ]
        head = ("server", "requests/s", "p50 ms", "p99 ms", "to Starlette, median", "errors")
        yield Shown(f"Overhead, {connections} connection(s)", head, rows)


def _throughput(found: dict[str, Any]) -> Iterator[Shown]:
    for rows_a_request, by_variant in found.items():
        rows = [
            (
                name,
                str(row["best_batch"]),
                f"{row['loop_rows_per_second']:,.0f}",
                f"{row['gateway_rows_per_second']:,.0f}",
                f"{row['ratio']:.2f} [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}]",
                f"{row['errors']:.0f}",
            )
            for name, row in by_variant.items()
        ]
        head = ("variant", "best batch", "loop rows/s", "gateway rows/s", "ratio", "errors")
        yield Shown(f"Throughput, {rows_a_request} row(s) a request", head, rows)


def targets(
    decision_us: Mapping[str, float],
    overhead: Mapping[Any, Mapping[str, Mapping[str, float]]],
    throughput: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Shown:
    """What was aimed at, beside what the other tables say."""
    many = next(found for connections, found in overhead.items() if str(connections) == "32")
    rows = [
        _aim(
            f"requests/s at 32 connections, no-op engine, {form}, to the bare Starlette route",
            many[f"gateway, {form}"]["ratio_to_starlette"],
            0.5,
        )
        for form in ("binary", "JSON")
    ]
    rows += [
        _aim(f"rows/s to a plain loop, {name}, {count} row(s) a request", row["ratio"], 0.9)
        for count, by_variant in throughput.items()
        for name, row in by_variant.items()
    ]
    route_us = max(
        us for name, us in decision_us.items() if name.startswith("route") and "refused" not in name
    )
    met = "met" if route_us < 50 else "**missed**"
    rows.append(("one decision that is not a refusal, µs", "< 50", f"{route_us:.1f}", met))
    return Shown("Against the targets", ("what", "target", "measured", ""), rows)


def _aim(what: str, ratio: float, least: float) -> tuple[str, ...]:
    met = "met" if ratio >= least else "**missed**"
    return what, f"≥ {least:g}", f"{ratio:.2f}", met


def _printed(console: Console, shown: Shown) -> None:
    table = Table(*shown.head, title=shown.title)
    for row in shown.rows:
        table.add_row(*row)
    console.print(table)


def _page(ran: str, shown: list[Shown]) -> str:
    """All of it as Markdown, with the machine and the day."""
    tables = [f"**{one.title}**\n\n{pages.table(one.head, one.rows)}" for one in shown]
    return "\n\n".join([ran, *(one.rstrip() for one in tables)])


if __name__ == "__main__":
    main()
