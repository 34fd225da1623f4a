"""`python -m tests.drills.fuzz`: run the cases, print what came of them, write the page."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import pages
from tests.drills import fuzz as package
from tests.drills.fuzz.cases import Tally
from tests.drills.report import PAGE

CASES = 210_000


def kinds_of(text: str) -> set[str]:
    """The kinds of a list by comma.

    Raises:
        argparse.ArgumentTypeError: one of them is none.
    """
    named = {name.strip() for name in text.split(",")}
    if unknown := sorted(named - set(package.KINDS)):
        raise argparse.ArgumentTypeError(
            f"no such kind: {', '.join(map(repr, unknown))}; expected some of "
            f"{', '.join(package.KINDS)}"
        )
    return named


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where any case was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kinds", type=kinds_of, help="by comma; by default all")
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {PAGE}")
    asked = parser.parse_args(arguments)
    ran, began_s = pages.here(), time.monotonic()
    print(f"seed {asked.seed}")
    tallies = package.fuzz(asked.cases, asked.seed, asked.kinds, asked.case)
    minutes = (time.monotonic() - began_s) / 60
    faults = sum(len(tally.faults) for tally in tallies.values())
    print(f"{sum(tally.cases for tally in tallies.values()):,} cases, {faults} faults")
    whole = (asked.cases, asked.kinds, asked.case) == (CASES, None, None)
    text = f"{ran} Seed {asked.seed}, {minutes:.0f} minutes.\n\n{table(tallies)}"
    pages.keep(asked.docs, PAGE, "make fuzz", text, whole=whole)
    return 1 if faults else 0


def table(tallies: Mapping[str, Tally]) -> str:
    """What came of each kind and of all, the most frequent outcome first."""
    rows = []
    for kind, tally in tallies.items():
        outcomes = ", ".join(f"{name} {count:,}" for name, count in tally.outcomes.most_common())
        slowest = f"{tally.slowest_s * 1000:.0f}"
        stalled, faults = f"{tally.stalled:,}", _told(len(tally.faults))
        rows.append((kind, f"{tally.cases:,}", outcomes, slowest, stalled, faults))
    cases = sum(tally.cases for tally in tallies.values())
    slowest_ms = 1000 * max((tally.slowest_s for tally in tallies.values()), default=0.0)
    stalled = f"{sum(tally.stalled for tally in tallies.values()):,}"
    faults = _told(sum(len(tally.faults) for tally in tallies.values()))
    rows.append(("**all**", f"{cases:,}", "", f"{slowest_ms:.0f}", stalled, faults))
    head = ("kind", "cases", "what came of them", "slowest ms", "slow, not again", "faults")
    return pages.table(head, rows)


def _told(faults: int) -> str:
    return f"**{faults:,}**" if faults else "0"


if __name__ == "__main__":
    sys.exit(main())
