"""Admission: who is turned away when the queue grows, by priority."""

from __future__ import annotations

from router.constraints import Priority

# Share of the queue that each priority may fill. Low is shed first, and what is left above
# normal's share is room that only high can take.
_SHARES: dict[Priority, float] = {"high": 1.0, "normal": 0.9, "low": 0.5}


def admits(queued: int, capacity: int, priority: Priority) -> bool:
    """Whether one more request of this priority may join `queued` others."""
    return queued < max(1, int(capacity * _SHARES[priority]))
