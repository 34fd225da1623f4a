"""Traces: recorded arrivals, read from the formats in which they are published, and replayed.

What is recorded is either every request's arrival (`Instants`) or how many came in each bin of time
(`Counts`). `parse` reads one from the content of a file, and `window` draws from it the arrivals of
a replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router.errors import GearshiftError

# Zero bins in a row, at most, that are silence; more are a gap in the recording.
LONGEST_SILENCE = 5


class BadTrace(GearshiftError):
    """A trace, or the spec of a process, that cannot be replayed.

    Names the trace, the line and the field, and says what came and what was expected.
    """

    code = "bad-trace"
    title = "Invalid trace"


@dataclass(frozen=True, slots=True)
class Instants:
    """Every request's arrival.

    Attributes:
        times: s, non-decreasing, the first 0 and the last above 0.
    """

    name: str
    times: tuple[float, ...]

    @property
    def rate_per_s(self) -> float:
        """Mean rate as recorded."""
        return (len(self.times) - 1) / self.times[-1]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many requests came in each bin of time.

    Attributes:
        counts: requests by bin; at least one is not 0.
        bin_s: length of a bin, s.
        stretches: (first, end) of the bins between gaps in the recording, which are more than
            `LONGEST_SILENCE` zeros in a row.
    """

    name: str
    counts: tuple[int, ...]
    bin_s: float = 1.0
    stretches: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stretches", _stretches(self.counts))

    @property
    def rate_per_s(self) -> float:
        """Mean rate as recorded, gaps left out."""
        bins = sum(end - first for first, end in self.stretches)
        return sum(self.counts) / (bins * self.bin_s)


Trace = Instants | Counts


def _stretches(counts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    first = zeros = 0
    for index, count in enumerate(counts):
        if count == 0:
            zeros += 1
            continue
        if zeros > LONGEST_SILENCE:
            if index - zeros > first:
                found.append((first, index - zeros))
            first = index
        zeros = 0
    end = len(counts) - (zeros if zeros > LONGEST_SILENCE else 0)
    if end > first:
        found.append((first, end))
    return tuple(found)


def bad(name: str, line: int | None, field: str, received: object, expected: str) -> BadTrace:
    """The refusal of a trace, at one place of it."""
    shown = received if isinstance(received, (int, float)) else str(received)[:200]
    place = name if line is None else f"{name}: line {line}"
    return BadTrace(
        f"{place}: {field}: expected {expected}, got {shown!r}",
        trace=name,
        line=line,
        field=field,
        received=str(shown),
        expected=expected,
    )
