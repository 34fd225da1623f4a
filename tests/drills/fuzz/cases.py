"""A case of fuzzing, what came of many, and how they are run."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from router.errors import GearshiftError, InvalidRequest, TooLarge

SLOW_S = 1.0
LIMIT_BYTES = 1 << 20
"""Of a body, for the functions and for the server alike."""


class Fault(Exception):
    """What a case must not lead to."""


Case = Callable[[Random], str]
"""Runs one case; returns what came of it, in a word."""


@dataclass
class Tally:
    """What came of the cases of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.outcomes.total()


def run(
    kind: str,
    case: Case,
    *,
    seed: int,
    numbers: range,
    clock_s: Callable[[], float] = time.perf_counter,
) -> Tally:
    """Run the cases of these numbers. One that is slow by `clock_s` has to be so again, twice, when
    all have run: what stalled the machine meanwhile is over then."""
    tally = Tally()
    least_s: dict[int, float] = {}

    def once(number: int) -> str:
        began_s = clock_s()
        try:
            outcome = case(Random(f"{kind} {seed} {number}"))
        except GearshiftError as error:
            outcome = error.code
            if not isinstance(error, InvalidRequest | TooLarge):
                tally.faults.append(f"{number}: {outcome}: {error}")
        except Exception as error:
            outcome = "fault"
            told = str(error) if isinstance(error, Fault) else traceback.format_exc()
            tally.faults.append(f"{number}: {told}")
        took_s = clock_s() - began_s
        least_s[number] = min(took_s, least_s.get(number, took_s))
        return outcome

    for number in numbers:
        tally.outcomes[once(number)] += 1
    for number in [number for number, took_s in least_s.items() if took_s > SLOW_S]:
        for _ in range(2):
            if least_s[number] > SLOW_S:
                once(number)
        if least_s[number] > SLOW_S:
            tally.faults.append(f"{number}: took {least_s[number]:.1f} s")
    tally.slowest_s = max(least_s.values(), default=0.0)
    return tally
