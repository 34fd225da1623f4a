"""Model-Switching: one variant at a time for everybody, by the load measured lately.

Zhang, Elnikety, Zarar, Gupta & Garg, "Model-Switching: Dealing with Fluctuating Workloads in
Machine-Learning-as-a-Service Systems", HotCloud 2020. What counts is effective accuracy, answers
that are right and in time. A table made offline says how long the 99th percentile of answers takes
by model and load; online, the load measured lately is looked up in it, and everybody is served by
the most accurate model whose 99th percentile still meets the deadline there.

Differences to the paper. Its table is measured; this one follows from the variants' batch times:
with batches of n rows in t(n) on k lanes, the machine serves m = k n / t(n) rows per ms. At a rate
r < m a row waits at most t(n) for a running batch, takes t(n) in its own, and finds a backlog whose
99th percentile is ln(100) r / (2 (m - r)) rows, as of Poisson arrivals at a server that serves
evenly (the diffusion approximation of M/D/1: P(Q > q) ~ exp(-2 (m - r) q / r); Kingman 1962). So
the 99th percentile is the least over n of

    2 t(n) + ln(100) r / (2 (m - r) m)

and infinite where no n makes m > r. When no model meets the deadline, the one with the greatest
capacity serves. The paper measures the load over seconds; here it is what the queue remembers, a
fraction of a second, so this one switches sooner than the original. It switches those that arrive;
what is queued keeps its variant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from router.batching import batch, ready
from router.choices import Choices
from router.dispatch import Assignment, Moment
from router.menu import Offer
from router.policies import Scene
from router.queue import Waiting


class ModelSwitching:
    """The most accurate that is allowed and keeps up with the load."""

    late = False
    admits_all = True

    def assign(self, choices: Choices, scene: Scene) -> Offer | None:
        """What the table says for the rate measured lately and the request's own deadline."""
        offers = ready(choices, scene.pace)
        rate = scene.rate_per_s / 1000
        limit_ms = scene.within_ms - scene.overhead_ms
        for offer in sorted(offers, key=lambda offer: (-offer.accuracy, offer.row_ms)):
            if keeps_up(offer, scene, rate, limit_ms):
                return offer
        return max(offers, key=lambda offer: _capacity(offer, scene, scene.max_batch), default=None)

    def dispatch(self, queue: Sequence[Waiting], moment: Moment) -> Assignment:
        """See `router.batching.batch`."""
        return batch(queue, moment)


def keeps_up(offer: Offer, scene: Scene, rate: float, limit_ms: float) -> bool:
    """Whether the 99th percentile of answers by `offer`, at `rate` rows per ms, is in time."""
    if limit_ms == math.inf:
        return _capacity(offer, scene, scene.max_batch) > rate
    for rows in range(scene.rows, max(scene.rows, scene.max_batch) + 1):
        twice_ms = 2 * scene.pace.promised_ms(offer, rows)
        if twice_ms > limit_ms:
            return False
        served = _capacity(offer, scene, rows)
        if served > rate:
            backlog = math.log(100) * rate / (2 * (served - rate))
            if twice_ms + backlog / served <= limit_ms:
                return True
    return False


def _capacity(offer: Offer, scene: Scene, rows: int) -> float:
    """Rows per ms of all lanes in batches of `rows`."""
    return len(scene.lane_free_in_ms) * rows / scene.pace.typical_ms(offer, rows)


POLICY = ModelSwitching()
