"""The audit: what clients saw against what the server counted, and whether anything grew.

Pure functions of counts and samples, so that each is tested by counts that do not add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

# Who left before an answer came does not know how the request ended.
LEFT = "left"


def accounts(clients: Mapping[str, int], server: Mapping[str, int]) -> list[str]:
    """What does not add up; empty where every request has exactly one outcome.

    Args:
        clients: requests by outcome: `ok`, an error's code, or `LEFT`.
        server: `gearshift_requests_total` by outcome, from none on.
    """
    wrong = []
    left = clients.get(LEFT, 0)
    seen = {outcome: count for outcome, count in clients.items() if outcome != LEFT}
    for outcome in sorted(seen.keys() | server.keys()):
        told, counted = seen.get(outcome, 0), server.get(outcome, 0)
        if not told <= counted <= told + left:
            most = f" to {told + left:,}" if left else ""
            wrong.append(f"{outcome}: clients saw {told:,}{most}, the server counted {counted:,}")
    total, counted = sum(seen.values()), sum(server.values())
    if not total <= counted <= total + left:
        wrong.append(
            f"in all: clients saw {total:,} answers and {left:,} left, "
            f"the server counted {counted:,}"
        )
    return wrong


def at_rest(gauges: Mapping[str, float]) -> list[str]:
    """Which of the gauges that are 0 when nothing happens are not."""
    return [f"{name} is {value:g} at rest" for name, value in sorted(gauges.items()) if value]


def grows(samples: Sequence[tuple[float, float]], tolerance: float) -> float:
    """By how much a quantity grew beyond `tolerance` over the last four fifths; 0 where it did not.

    The slope is Theil and Sen's, the median over pairs of samples (Sen 1968), which bursts do not
    tilt; and a quantity that only rose at first, as caches fill, has not grown over the last half.

    Args:
        samples: (second, value), ascending.
        tolerance: in the unit of the values, over the whole time.
    """
    settled = list(samples[len(samples) // 5 :])
    grown = min(_risen(settled), 2 * _risen(settled[len(settled) // 2 :]))
    return grown if grown > tolerance else 0.0


def _risen(samples: Sequence[tuple[float, float]]) -> float:
    """The slope times the time."""
    step = max(1, len(samples) // 200)
    few = samples[::step]
    slopes = [
        (after - before) / (later_s - sooner_s)
        for at, (sooner_s, before) in enumerate(few)
        for later_s, after in few[at + 1 :]
        if later_s > sooner_s
    ]
    return median(slopes) * (samples[-1][0] - samples[0][0]) if slopes else 0.0
