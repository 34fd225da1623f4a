"""Patience: what work that is in no hurry may take of the lanes.

A request without a deadline, or with a distant one, is due when its patience ends, so that it does
not wait for ever: by then it should have begun. How long it then runs is its own affair, as long as
nobody suffers for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from router.choices import Choices
from router.pace import Tariff
from router.queue import PATIENCE_S, Expected, Waiting

_PATIENCE_MS = PATIENCE_S * 1000


def spares(
    sample: Sequence[Waiting],
    patient: Sequence[bool],
    tariffs: Mapping[Choices, Tariff],
    expected: Sequence[Expected],
    free_in_ms: Sequence[float],
    share: float,
) -> bool:
    """Whether the longest of the patient, run as they like, spares those likely to come.

    It does where nobody in a hurry is likely to come while it runs, or the other lanes have twice
    the time that those want.
    """
    hurried = [kind for kind in expected if kind.within_ms < _PATIENCE_MS]
    longest_ms = max(
        [
            waiting.rows * tariffs[waiting.choices].row_ms[0]
            for waiting, waits in zip(sample, patient, strict=True)
            if waits and tariffs[waiting.choices].offers
        ],
        default=0.0,
    )
    if sum([kind.rows_per_ms for kind in hurried]) * longest_ms < 1:
        return True
    wanted = sum(
        [
            kind.rows_per_ms * tariffs[kind.choices].row_ms[0]
            for kind in hurried
            if tariffs[kind.choices].offers
        ]
    )
    soon_ms = min([kind.within_ms for kind in hurried])
    free = sum([ms <= soon_ms for ms in free_in_ms])
    return 2 * wanted <= (free - 1) * share


def starts(
    sample: Sequence[Waiting],
    rows: Sequence[int],
    patient: Sequence[bool],
    each_ms: Sequence[float],
) -> tuple[list[float], list[float]]:
    """Lane time that each needs before it is due; and of each prefix, until then.

    A patient request needs what goes before it: it has begun then. One request runs on one lane, so
    before those that are as patient no more of it counts than their patience; who is in a hurry
    waits for all of it.
    """
    brief_ms = brief(sample, rows, patient, each_ms)
    prefixes = list(accumulate(brief_ms))
    needs = [
        until - own * waiting.rows / max(1, n) if waits else until_all
        for until, until_all, own, waiting, n, waits in zip(
            prefixes, accumulate(each_ms), brief_ms, sample, rows, patient, strict=True
        )
    ]
    return needs, prefixes


def brief(
    sample: Sequence[Waiting],
    rows: Sequence[int],
    patient: Sequence[bool],
    each_ms: Sequence[float],
) -> list[float]:
    """`each_ms`, of a patient request no more than its patience."""
    return [
        min(ms, _PATIENCE_MS * n / max(1, waiting.rows)) if waits else ms
        for waiting, n, waits, ms in zip(sample, rows, patient, each_ms, strict=True)
    ]
