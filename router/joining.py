"""Joining: who runs in the same batch as the request that heads it, at nobody's cost.

Another request joins where the same variant is among its choices and is worth as much to it as its
own choice, less what riding along saves, and where the longer batch still makes every member's
deadline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from router.choices import Choices
from router.menu import Offer
from router.pace import Pace
from router.queue import Waiting


def joined(
    head: Waiting,
    offer: Offer,
    others: Iterable[Waiting],
    pace: Pace,
    price: float,
    room: int,
    now_s: float,
    overhead_ms: float,
) -> tuple[list[Waiting], float]:
    """The members of a batch on `offer`, the head first, and what it is promised to take, in ms.

    Args:
        others: who may join, the most urgent first; of other models, too, whose choices never have
            this offer.
        price: of lane time, for this model; see `router.plan`.
        room: rows, at most; a head that has more runs alone.
        overhead_ms: what it takes to bring an answer from the lane to its caller.
    """
    members, rows = [head], head.rows
    promised_ms = pace.promised_ms(offer, rows)
    # A head that only makes it at the median has no time to spare for company.
    slack_ms = max((head.deadline_s - now_s) * 1000 - overhead_ms, promised_ms)
    room = min(room, pace.rows_within(offer, slack_ms))
    # The head's like, too: its own deadline may have left it less than they choose.
    better: dict[tuple[Choices, int], float] = {}
    others_choice: set[Choices] = set()
    for other in others:
        if rows >= room:
            break
        choices = other.choices
        if choices in others_choice or rows + other.rows > room:
            continue
        kind = choices, other.rows
        better_ms = better.get(kind)
        if better_ms is None:
            if offer not in choices.offers:
                others_choice.add(choices)
                continue
            better_ms = better[kind] = _better_ms(other, offer, pace, price)
        other_ms = (other.deadline_s - now_s) * 1000 - overhead_ms
        if other_ms >= better_ms != math.inf:
            continue
        longer_ms = pace.promised_ms(offer, rows + other.rows)
        least_ms = min(slack_ms, other_ms)
        if longer_ms > least_ms:
            continue
        members.append(other)
        rows, promised_ms = rows + other.rows, longer_ms
        if least_ms < slack_ms:
            slack_ms = least_ms
            room = min(room, pace.rows_within(offer, slack_ms))
    return members, promised_ms


def _better_ms(other: Waiting, offer: Offer, pace: Pace, price: float) -> float:
    """How long it takes to answer requests like `other` better at `price` than by `offer`.

    `offer` is among its choices. Who has less time, rides along. Infinite when nothing is better.
    """
    choices = other.choices
    tariff = pace.tariff(choices)
    worth = dict(zip(choices.offers, choices.worth, strict=True))
    # A row more in this batch takes less than its share of a batch of its own.
    table = offer.typical_ms
    joins_ms = (table[-1] - table[1]) / max(1, len(table) - 2)
    at = tariff.at(price)
    least_ms = math.inf
    for own, row_ms in zip(tariff.offers[at:], tariff.row_ms[at:], strict=True):
        if own is offer:
            break
        gains = price * (row_ms - joins_ms)
        if worth[offer] < worth[own] - max(0.0, gains):
            least_ms = min(least_ms, pace.promised_ms(own, other.rows))
    return least_ms
