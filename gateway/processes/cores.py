"""How many cores this process may use, and how workers divide them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{core}/topology/{what}"


class Share(NamedTuple):
    """What one worker has of the cores.

    Attributes:
        mask: the cores that it may run on and no other worker may; empty where the system binds
            no process to cores.
        usable: how many of them it can keep busy; fewer under a quota.
    """

    mask: frozenset[int]
    usable: int


def usable_cores(quota_file: Path = _QUOTA_FILE) -> int:
    """The cores of its affinity mask, or fewer where its cgroup (v2) has a smaller quota."""
    cores = len(_mask()) or os.cpu_count() or 1
    try:
        limit, period = quota_file.read_text(encoding="ascii").split()
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    except (OSError, ValueError):
        pass  # No cgroup v2 here, so no quota to keep to.
    return cores


def divide(workers: int) -> list[Share]:
    """The usable cores, divided among `workers`: as equal as can be, and none given twice.

    Two hardware threads of one core, and the cores of one socket, stay together where they can.

    Raises:
        ValueError: there are fewer usable cores than workers; it says how many there are.
    """
    usable = usable_cores()
    if workers > usable:
        raise ValueError(f"at most {usable}, the cores that can be used")
    mask = sorted(_mask(), key=_place)
    return [
        Share(frozenset(_part(mask, number, workers)), len(_part(range(usable), number, workers)))
        for number in range(workers)
    ]


def _part(whole: list[int] | range, number: int, parts: int) -> list[int] | range:
    return whole[number * len(whole) // parts : (number + 1) * len(whole) // parts]


def _mask() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _place(core: int) -> tuple[int, int, int]:
    """Socket, physical core and number; by number alone where the system does not tell."""
    try:
        package, physical = [
            int(Path(_TOPOLOGY.format(core=core, what=what)).read_text(encoding="ascii"))
            for what in ("physical_package_id", "core_id")
        ]
    except (OSError, ValueError):
        return 0, 0, core
    return package, physical, core
