"""The machine that figures were measured on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from pathlib import Path

import psutil

from router.card import Machine

# What decides which kernels an engine picks.
_TELLING = (
    "avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_bf16",
    "amx_fp16", "amx_int8", "asimd", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip


def describe() -> Machine:
    """This machine, as a card records it."""
    cpu, flags = _cpu()
    fields = {
        "cpu": cpu,
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "instruction_sets": tuple(name for name in _TELLING if name in flags),
        "system": f"{platform.system()} {platform.machine()}",
    }
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return Machine.model_validate({**fields, "fingerprint": digest})


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and its cgroup's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = Path("/sys/fs/cgroup/cpu.max")
    try:
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores or 1, max(1, math.floor(int(limit) / int(period))))
    except (OSError, ValueError):
        pass  # no cgroup v2 here, so no quota to keep to
    return cores or 1


def _cpu() -> tuple[str, frozenset[str]]:
    """Model name and instruction-set flags, from Linux's own account where it gives one."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key in ("flags", "Features"):
            flags = frozenset(value.split())
            break
    return name, flags
