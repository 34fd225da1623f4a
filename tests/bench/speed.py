"""`python -m tests.bench.speed`: compute-bound networks, overhead at half load, memory.

Prints the tables, and writes them into docs/benchmarks/performance.md.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import pages
from tests.bench.computebound import computebound
from tests.bench.halfload import halfload
from tests.e2e.harness import Server
from tests.stores import write_variant

_PAGE = Path("docs/benchmarks/performance.md")
_HEAVY = ("torch", "openvino", "onnxruntime")


def memory() -> dict[str, Any]:
    """Resident MB of a serving process whose one variant needs no engine, and which engines'
    libraries it has loaded."""
    with tempfile.TemporaryDirectory() as folder:
        write_variant(Path(folder), "echo", "fp32")
        with Server(Path(folder)) as server:
            for _ in range(100):
                server.infer()
            home = Path(f"/proc/{server.process.pid}")
            resident = re.search(r"VmRSS:\s+(\d+) kB", (home / "status").read_text())
            mapped = (home / "maps").read_text()
    assert resident is not None
    loaded = [name for name in _HEAVY if f"/{name}/" in mapped]
    return {"resident_mb": int(resident[1]) * 1024 / 1e6, "engines_loaded": loaded}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.speed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="figures as JSON")
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    parser.add_argument("--smoke", action="store_true", help="everything once, in tiny intervals")
    parser.add_argument("--only", choices=["computebound", "halfload", "memory"])
    wanted = parser.parse_args()
    rounds, long_s, short_s = (1, 4.0, 1.0) if wanted.smoke else (3, 8.0, 5.0)
    ran = f"{pages.here()} The clients share the cores."
    results: dict[str, Any] = {}
    if wanted.only in (None, "memory"):
        results["memory"] = memory()
    if wanted.only in (None, "halfload"):
        results["halfload"] = halfload(rounds=rounds, seconds=short_s)
    if wanted.only in (None, "computebound"):
        with tempfile.TemporaryDirectory() as folder:
            results["computebound"] = computebound(Path(folder), rounds=rounds, seconds=long_s)
    text = _text(ran, results)
    print(text)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    wanted.out.mkdir(parents=True, exist_ok=True)
    file = wanted.out / f"speed-{now.replace(':', '')}.json"
    file.write_text(json.dumps({"date": now, **results}, indent=1))
    print(f"figures in {file}")
    whole = not (wanted.smoke or wanted.only)
    pages.keep(wanted.docs, _PAGE, "make bench-speed", text, whole=whole)


def _text(ran: str, results: dict[str, Any]) -> str:
    parts = [f"{ran}\n"]
    if "computebound" in results:
        parts += [
            "**Compute-bound networks, one row a request**\n",
            _bound(results["computebound"]),
        ]
    if "halfload" in results:
        parts += [
            "**Overhead at half of the peak, open loop: all but queue and inference**\n",
            _half(results["halfload"]),
        ]
    if "memory" in results:
        parts += [
            "**Memory of the serving process without an engine**\n",
            _memory(results["memory"]),
        ]
    return "\n".join(parts)


def _bound(found: dict[str, Any]) -> str:
    rows = [
        (
            name,
            str(row["best_batch"]),
            f"{row['loop_rows_per_second']:,.0f}",
            f"{row['gateway_rows_per_second']:,.0f}",
            f"{row['ratio']:.3f} [{row['ratio_min']:.3f}, {row['ratio_max']:.3f}]",
            "≥ 0.95",
            _met(row["ratio"] >= 0.95),
        )
        for name, row in found.items()
    ]
    head = (
        "network",
        "best batch",
        "loop rows/s",
        "gateway rows/s",
        "ratio",
        "target",
        "",
    )
    return pages.table(head, rows)


def _half(found: dict[str, Any]) -> str:
    rows = [
        (
            form,
            f"{row['peak_per_second']:,.0f}",
            f"{row['asked_per_second']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['bare_p50_ms']:.2f}",
            f"{row['bare_p99_ms']:.2f}",
            _met(row["p50_ms"] <= 0.25 and row["p99_ms"] <= 1.0),
            str(row["errors"]),
        )
        for form, row in found.items()
    ]
    head = (
        *("request", "peak/s", "asked/s", "overhead p50 ms (≤ 0.25)", "p99 ms (≤ 1)"),
        *("bare route p50 ms", "p99 ms", "", "errors"),
    )
    return pages.table(head, rows)


def _memory(found: dict[str, Any]) -> str:
    loaded = ", ".join(found["engines_loaded"]) or "none"
    met = found["resident_mb"] <= 150 and not found["engines_loaded"]
    row = (f"{found['resident_mb']:.0f}", "≤ 150", loaded, _met(met))
    return pages.table(("resident MB", "target", "engines' libraries loaded", ""), [row])


def _met(yes: bool) -> str:
    return "met" if yes else "**missed**"


if __name__ == "__main__":
    main()
