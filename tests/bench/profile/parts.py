"""Which part of the gateway a stack belongs to: pure, so that it can be tested."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

# Part by file, the innermost frame that is known deciding. In the order of a request.
PARTS = {
    "decode": ("gateway/wire", "gateway/http/infer", "gateway/processors"),
    "read HTTP": ("uvicorn/", "gateway/http/", "gateway/rpc", "gateway/app"),
    "decide": (
        *("router/route", "router/feasible", "router/estimate", "router/constraints"),
        *("router/snapshot", "router/choices", "router/menu", "router/decision", "router/policies"),
    ),
    "queue and dispatch": (
        *("gateway/service", "gateway/execution/lanes", "router/scheduler", "router/dispatch"),
        *("router/queue", "router/pace", "router/plan", "router/price", "router/sample"),
        *("router/ahead", "router/admission"),
        *("gateway/execution/settling", "gateway/lifecycle/residency", "gateway/lifecycle/ideal"),
    ),
    "make a batch": (
        *("gateway/execution/batch", "gateway/execution/lease"),
        *("gateway/hosts", "gateway/lifecycle/fleet"),
    ),
    "engine": ("gateway/engines",),
    "count": ("gateway/metrics", "router/telemetry", "prometheus_client/"),
}
LOOP, LANES, OTHER = "event loop", "lanes", "other"
# A lane that waits for work, or for the interpreter's lock after it was woken.
_WAITS = re.compile(r"wait \([^()]*threading\.py(:\d+)?\)$")
_FRAME = re.compile(r"\(([^()]+?)(?::\d+)?\)$")


def part_of(stack: Iterable[str]) -> str:
    """The part of one stack, outermost frame first, each as `function (file:line)`."""
    for frame in reversed(list(stack)):
        found = _FRAME.search(frame)
        file = found[1] if found else ""
        for part, files in PARTS.items():
            if any(name in file for name in files):
                return part
    return OTHER


def by_thread(raw: str) -> dict[str, Counter[str]]:
    """Samples by kind of thread ("event loop", "lanes", "other"), then by part, from py-spy's raw
    format with threads: one line a stack, frames with semicolons, then the count. A thread that
    waits does not count, though the sampler may take one that is being woken for a running one."""
    found: dict[str, Counter[str]] = {}
    for line in raw.splitlines():
        text, _, count = line.rpartition(" ")
        frames = text.split(";")
        thread = next((frame for frame in frames if frame.startswith("thread ")), "")
        kind = LANES if "lane" in thread else LOOP if "MainThread" in thread else OTHER
        inner = [frame for frame in frames if not frame.startswith(("thread ", "process "))]
        if inner and _WAITS.search(inner[-1]):
            continue
        part = part_of(inner)
        if part == OTHER and kind == LOOP:
            part = LOOP  # uvloop's and asyncio's own
        found.setdefault(kind, Counter())[part] += int(count)
    return found
