"""Proteus: accuracy scaling, by the shares of the demand that give the most effective accuracy.

Ahmad, Guan, Friedman, Williams, Sitaraman & Woo, "Proteus: A High-Throughput Inference-Serving
System with Accuracy Scaling", ASPLOS 2024. A mixed-integer program decides, for the demand measured
lately, which variant each device hosts and how queries are split among them, so that mean accuracy
is greatest while the variants' throughput, in the largest batch within the deadline, serves the
demand; queries are spread by chance in these shares. Each variant's queue batches adaptively: it
waits for a fuller batch as long as its first query can still make its deadline.

Differences. Lanes are all alike and every variant is loaded on each, so hosting is no decision and
the program is the linear one over shares x:

    max Σ accuracy_v x_v   subject to   Σ x_v / throughput_v ≤ lanes / (β rate),   Σ x_v = 1

with β = 1.05, the headroom of the authors' published configurations (UMass-LIDS/Proteus),
whose optimum mixes at most two variants, neighbours on the upper concave hull of accuracy over time
per row. When even the fastest cannot serve the rate, it gets everything, and what expires is
dropped. It is solved for each request over its own choices, as if everybody had the same, and at
every arrival, where Proteus solves anew every so many seconds; the rate is what the queue
remembers, a fraction of a second. Waiting ends when one row more would make the first request
late: who came after that could not ride along. In Proteus a device waits for its own variant; here
lanes are shared, so they wait only while there are more idle lanes than variants with work, or as
many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from router.batching import fill, hopeless, offer_of, ready, routed_alike
from router.chance import chance
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting

# Capacity there must be, as a multiple of the rate.
BETA = 1.05


class Proteus:
    """A mixture of neighbouring variants that just keeps up."""

    late = False
    admits_all = True

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """One of the mixture, by chance in its share."""
        at = chance(scene.ticket)
        for offer, share in shares(choices, scene):
            at -= share
            if at < 0:
                return offer
        return None

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """The most urgent batch that is full or cannot wait; else when the first cannot."""
        expired: list[Waiting] = []
        batches: dict[tuple[str, str], Assignment] = {}
        until_s = math.inf
        for at, head in enumerate(queue):
            kind = head.choices.model, head.routed
            if kind in batches:
                continue
            offer = offer_of(head, moment)
            if offer is None or hopeless(head, offer, moment):
                expired.append(head)
                continue
            alike = routed_alike(head)
            members, promised_ms = fill(
                head, offer, queue[at + 1 :], moment, moment.max_batch, alike
            )
            one = Assignment(head.choices.model, offer.name, tuple(members), (), promised_ms)
            rows = sum([member.rows for member in members])
            run_s = self._run_s(head, offer, rows, moment)
            left_out = sum([alike(other) for other in queue[at:]]) > len(members)
            if left_out or rows >= moment.max_batch or run_s <= moment.now_s:
                return replace(one, expired=tuple(expired))
            batches[kind] = one
            until_s = min(until_s, run_s)
        if not batches:
            return Assignment(expired=tuple(expired))
        if len(batches) > sum([free <= 0 for free in moment.lane_free_in_ms]):
            # A lane that waits for one variant would keep another's from it.
            return replace(next(iter(batches.values())), expired=tuple(expired))
        return Assignment(expired=tuple(expired), wait_until_s=until_s)

    def _run_s(self, head: Waiting, offer: Offer, rows: int, moment: Moment) -> float:
        """When a batch of `rows` has to start: one row more could not be answered in time then."""
        pace = moment.paces[head.choices.model]
        takes_ms = pace.promised_ms(offer, rows + 1) + moment.overhead_ms
        return head.due_s - takes_ms / 1000


def shares(choices: Choices, scene: Scene) -> list[tuple[Offer, float]]:
    """Share of the demand by variant: one variant, or two neighbours on the hull."""
    hull = _hull(choices, scene)
    if not hull:
        return []
    budget_ms = math.inf  # lane time there is for each row
    if (demanded := BETA * scene.rate_per_s / 1000) > 0:
        budget_ms = len(scene.lane_free_in_ms) / demanded
    for at, (ms, offer) in enumerate(hull):
        if ms <= budget_ms:
            if at == 0:
                return [(offer, 1.0)]
            slower_ms, slower = hull[at - 1]
            share = (budget_ms - ms) / (slower_ms - ms)
            return [(slower, share), (offer, 1.0 - share)]
    return [(hull[-1][1], 1.0)]


def _hull(choices: Choices, scene: Scene) -> list[tuple[float, Offer]]:
    """(time per row, variant) of the upper concave hull of accuracy over time, slowest first."""
    points = []
    for offer in ready(choices, scene.pace):
        rows = _largest(offer, scene)
        if rows:
            points.append((scene.pace.typical_ms(offer, rows) / rows, offer))
    points.sort(key=lambda point: (-point[1].accuracy, point[0]))
    hull: list[tuple[float, Offer]] = []
    for ms, offer in points:
        if hull and ms >= hull[-1][0]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], (ms, offer)):
            hull.pop()
        hull.append((ms, offer))
    return hull


def _largest(offer: Offer, scene: Scene) -> int:
    """Rows of the largest batch within the deadline; 0 when even the request alone is too slow."""
    limit_ms = scene.within_ms - scene.overhead_ms
    for rows in range(max(scene.rows, scene.max_batch), 0, -1):
        if scene.pace.typical_ms(offer, rows) <= limit_ms:
            return rows if rows >= scene.rows else 0
    return 0


def _slope(slower: tuple[float, Offer], faster: tuple[float, Offer]) -> float:
    """Accuracy lost for each ms gained by the faster of two."""
    return (slower[1].accuracy - faster[1].accuracy) / (slower[0] - faster[0])


POLICY = Proteus()
