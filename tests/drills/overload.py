"""Overload, open loop: `python -m tests.drills.overload`, or `make overload`.

Finds the most that a server answers within the deadline, offers it several times as much, and
looks at what becomes of each request: goodput stays at its peak, who is not served is told so at
once, memory stays flat, and afterwards all is as before.

Lanes that sleep stand for lanes that compute elsewhere: two cores hold the server and the load.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.bench import pages
from tests.drills.openloop import UNSENT, Fate, Kind, infer, replay
from tests.drills.report import PAGE, Check, passed, table
from tests.e2e.harness import Server, infer_body
from tests.stores import write_variant

LANES, MAX_BATCH = 2, 4
# Milliseconds that a batch takes, whatever its rows.
VARIANTS = (("fp32", 0.95, 120), ("int8", 0.93, 80), ("small", 0.90, 50))
DEADLINE_MS = 400
REFUSED_WITHIN_MS = 10.0
RECOVERED_WITHIN_S = 2.0
# What `make overload` runs, and what the page is written of.
SECONDS, TIMES, RAMP_SECONDS = 60.0, 10.0, 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the requests of one interval. Times in ms."""

    offered: int
    offered_per_s: float
    goodput_per_s: float
    in_time: int
    refused: int
    late: int
    failed: int
    answer_p99_ms: float
    refusal_p50_ms: float
    refusal_p99_ms: float
    refusal_most_ms: float
    refused_at_once: float
    lag_p99_ms: float

    def __str__(self) -> str:
        return (
            f"offered {self.offered_per_s:,.0f}/s, answered in time {self.goodput_per_s:,.0f}/s "
            f"(p99 {self.answer_p99_ms:.0f} ms); refused {self.refused:,} (p50 "
            f"{self.refusal_p50_ms:.2f}, p99 {self.refusal_p99_ms:.1f}, most "
            f"{self.refusal_most_ms:.1f} ms, {self.refused_at_once:.2%} within "
            f"{REFUSED_WITHIN_MS:g}); late {self.late:,}; failed {self.failed}; "
            f"sender behind by {self.lag_p99_ms:.1f} ms at p99"
        )


def report(fate: Fate, seconds: float, deadline_ms: float = DEADLINE_MS) -> Report:
    """The figures of one interval."""
    took_ms = fate.took_s * 1000
    # The sender's own lag is not the server's: a deadline counts from the request's last byte.
    lag_ms = (fate.sent_s - fate.due_s)[fate.status != UNSENT] * 1000
    answered, refused = fate.status == 200, fate.status == 429
    in_time = answered & (took_ms - (fate.sent_s - fate.due_s) * 1000 <= deadline_ms)
    late = (answered & ~in_time) | (fate.status == 504)
    refusal_ms = took_ms[refused]
    return Report(
        offered=len(took_ms),
        offered_per_s=len(took_ms) / seconds,
        goodput_per_s=float(in_time.sum()) / seconds,
        in_time=int(in_time.sum()),
        refused=int(refused.sum()),
        late=int(late.sum()),
        failed=int((~(answered | refused | late)).sum()),
        answer_p99_ms=_percentile(took_ms[answered], 99),
        refusal_p50_ms=_percentile(refusal_ms, 50),
        refusal_p99_ms=_percentile(refusal_ms, 99),
        refusal_most_ms=float(refusal_ms.max(initial=0.0)),
        refused_at_once=float((refusal_ms <= REFUSED_WITHIN_MS).mean()) if refused.any() else 1.0,
        lag_p99_ms=_percentile(lag_ms, 99),
    )


def _percentile(values: np.ndarray, percent: float) -> float:  # type: ignore[type-arg]
    return float(np.percentile(values, percent)) if len(values) else 0.0


def store(models: Path) -> None:
    """A frontier whose capacity is the lanes', not the gateway's."""
    for name, accuracy, ms in VARIANTS:
        write_variant(
            models,
            "echo",
            name,
            accuracy=accuracy,
            latency_ms_at_1=ms,
            latency_ms_at_32=ms,
            delay_ms=ms,
        )


def demand() -> Sequence[Kind]:
    """What is asked for: mostly with a deadline in a header, some with one in the body."""
    limit = str(DEADLINE_MS)
    return [
        Kind(infer("echo", infer_body(), {"Gearshift-Max-Latency-Ms": limit}), 8),
        Kind(infer("echo", infer_body(), {"Gearshift-Max-Latency-Ms": limit,
                                          "Gearshift-Min-Accuracy": "0.85"}), 1),
        Kind(infer("echo", infer_body(parameters={"max_latency_ms": DEADLINE_MS}), {}), 1),
    ]  # fmt: skip


@contextmanager
def memory_of(process: int) -> Iterator[list[float]]:
    """Resident MB of a process, looked at four times a second."""
    seen: list[float] = []
    ended = threading.Event()
    watched = psutil.Process(process)

    def look() -> None:
        while not ended.wait(0.25):
            seen.append(watched.memory_info().rss / 1e6)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


@dataclass(frozen=True)
class Outcome:
    """What a whole drill saw: rates a second, memory in MB, times in ms."""

    times: float
    seconds: float
    peak_per_s: float
    before: Report
    hot: Report
    megabytes: list[float]
    recovered: bool
    late_again_ms: float

    def checks(self) -> list[Check]:
        """What is looked at, with what it has to be."""
        hot, share = self.hot, self.hot.goodput_per_s / self.peak_per_s
        third = len(self.megabytes) // 3 or 1
        last, middle = self.megabytes[-third:], self.megabytes[third : 2 * third]
        grown = float(np.median(last) - np.median(middle or last))
        return [
            Check("peak, answered in time", "", f"{self.peak_per_s:,.0f}/s"),
            Check(
                "offered, as an open loop",
                f"{self.times:g} times the peak",
                f"{hot.offered:,} in {self.seconds:g} s, {hot.offered_per_s:,.0f}/s",
            ),
            Check("answered in time", "≥ 95 % of the peak", f"{share:.1%}", share >= 0.95),
            Check(
                "refused",
                f"p99 ≤ {REFUSED_WITHIN_MS:g} ms",
                f"{hot.refused:,}; p50 {hot.refusal_p50_ms:.2f} ms, p99 {hot.refusal_p99_ms:.1f}, "
                f"most {hot.refusal_most_ms:.1f}; {hot.refused_at_once:.2%} within "
                f"{REFUSED_WITHIN_MS:g}",
                hot.refusal_p99_ms <= REFUSED_WITHIN_MS,
            ),
            Check("late", "≤ 0.1 %", f"{hot.late:,}", hot.late <= 0.001 * hot.offered),
            Check("failed", "0", f"{hot.failed:,}", hot.failed == 0),
            Check(
                "memory",
                "≤ 2 MB more in the last third",
                f"{self.megabytes[0]:.0f} MB at first, {self.megabytes[-1]:.0f} at last, "
                f"{grown:+.1f} over the last third",
                grown <= 2.0,
            ),
            Check(
                f"{RECOVERED_WITHIN_S:g} s after",
                "all answered",
                f"{'all' if self.recovered else 'not all'} answered, p99 "
                f"{self.late_again_ms:.0f} ms; before, {self.before.answer_p99_ms:.0f}",
                self.recovered,
            ),
        ]


def drill(*, seconds: float, times: float, ramp_seconds: float) -> Outcome:
    """Find the peak, offer `times` as much for `seconds`, and look whether all is as before."""
    capacity = LANES * MAX_BATCH / min(ms for *_, ms in VARIANTS) * 1000
    with tempfile.TemporaryDirectory() as folder:
        store(Path(folder))
        with Server(Path(folder), lanes=LANES, max_batch=MAX_BATCH) as server:
            host, port = server.address.split(":")

            def offer(per_second: float, seconds: float) -> tuple[Fate, Report]:
                fate = replay((host, int(port)), demand(), per_second=per_second, seconds=seconds)
                figures = report(fate, seconds)
                print(figures, flush=True)
                return fate, figures

            print(f"capacity of the lanes by the cards: {capacity:,.0f}/s")
            offer(capacity * 0.3, 2.0)
            _, before = offer(capacity * 0.5, ramp_seconds)
            ramp = [offer(capacity * x, ramp_seconds)[1] for x in (0.8, 0.9, 1.0, 1.1, 1.3)]
            peak = max(each.goodput_per_s for each in ramp)
            print(f"peak {peak:,.0f}/s; now {times:g} times that")
            with memory_of(server.process.pid) as megabytes:
                _, hot = offer(peak * times, seconds)
            fate, _ = offer(capacity * 0.5, 5.0)
            after = fate.due_s >= RECOVERED_WITHIN_S
            recovered = bool((fate.status[after] == 200).all())
            late_again = _percentile(fate.took_s[after] * 1000, 99)
            server.await_idle()
    return Outcome(times, seconds, peak, before, hot, megabytes, recovered, late_again)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drills.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--times", type=float, default=TIMES, help="of the peak, to be offered")
    parser.add_argument("--ramp-seconds", type=float, default=RAMP_SECONDS)
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {PAGE}")
    asked = parser.parse_args()
    ran = pages.here()
    checks = drill(
        seconds=asked.seconds, times=asked.times, ramp_seconds=asked.ramp_seconds
    ).checks()
    text = f"{ran}\n\n{table(checks)}"
    print(text)
    whole = (asked.seconds, asked.times, asked.ramp_seconds) == (SECONDS, TIMES, RAMP_SECONDS)
    pages.keep(asked.docs, PAGE, "make overload", text, whole=whole)
    good = passed(checks)
    print("passed" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
