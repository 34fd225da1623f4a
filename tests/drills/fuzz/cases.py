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
TIMES = 3
"""How often a case has to be slow to be a fault."""
LIMIT_BYTES = 1 << 20
"""Of a body, for the functions and for the server alike."""


class Fault(Exception):
    """What a case must not lead to."""


Case = Callable[[Random], str]
"""Runs one case; returns what came of it, in a word."""


@dataclass
class Tally:
    """What came of the cases of one kind.

    Attributes:
        slowest_s: of all runs, those that were run again included.
        stalled: cases that were slow, and not so when they were run again.
        faults: one line for each case that was one, its name first.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    stalled: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.outcomes.total()


class Runs:
    """Runs cases of one kind, each once; and those that were slow by `clock_s` again, when all have
    run: what stalled the machine meanwhile is over then."""

    def __init__(self, clock_s: Callable[[], float] = time.perf_counter) -> None:
        self._clock_s = clock_s
        self._tally = Tally()
        self._faults: dict[str, str] = {}
        self._slow: dict[str, Callable[[], str]] = {}

    def first(self, name: str, case: Callable[[], str]) -> None:
        """Run the case of that name, for the first time."""
        outcome, took_s = self._once(name, case)
        self._tally.outcomes[outcome] += 1
        if took_s > SLOW_S:
            self._slow[name] = case

    def told(self) -> Tally:
        """What came of all, now that no more come."""
        for name, case in self._slow.items():
            for _ in range(TIMES - 1):
                _, took_s = self._once(name, case)
                if took_s <= SLOW_S:
                    self._tally.stalled += 1
                    break
            else:
                before = f"{self._faults[name]}; " if name in self._faults else ""
                self._faults[name] = f"{before}took {took_s:.1f} s, slow {TIMES} times"
        self._tally.faults = [f"{name}: {why}" for name, why in self._faults.items()]
        return self._tally

    def _once(self, name: str, case: Callable[[], str]) -> tuple[str, float]:
        began_s = self._clock_s()
        try:
            outcome = case()
        except GearshiftError as error:
            outcome = error.code
            if not isinstance(error, InvalidRequest | TooLarge):
                self._faults.setdefault(name, f"{outcome}: {error}")
        except Exception as error:
            outcome = "fault"
            why = str(error) if isinstance(error, Fault) else traceback.format_exc()
            self._faults.setdefault(name, why)
        took_s = self._clock_s() - began_s
        self._tally.slowest_s = max(self._tally.slowest_s, took_s)
        return outcome, took_s


def run(
    kind: str,
    case: Case,
    *,
    seed: int,
    numbers: range,
    clock_s: Callable[[], float] = time.perf_counter,
) -> Tally:
    """Run the cases of these numbers."""
    runs = Runs(clock_s)

    def numbered(number: int) -> Callable[[], str]:
        return lambda: case(Random(f"{kind} {seed} {number}"))

    for number in numbers:
        runs.first(str(number), numbered(number))
    return runs.told()
