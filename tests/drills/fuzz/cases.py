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
    """Run the cases of these numbers. One that is slow by `clock_s` has to be so again, alone."""
    tally = Tally()
    for number in numbers:
        for attempt in (1, 2, 3):
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
            if took_s <= SLOW_S:
                break
            if attempt == 3:
                tally.faults.append(f"{number}: took {took_s:.1f} s")
        tally.slowest_s = max(tally.slowest_s, took_s)
        tally.outcomes[outcome] += 1
    return tally
