"""A sample of the queue: the last requests of some of its prefixes, each for those before it."""

from __future__ import annotations

from collections.abc import Sequence

from router.queue import Waiting

# Prefixes of a long queue that are looked at.
SAMPLES = 20


def sampled(queue: Sequence[Waiting], samples: int = SAMPLES) -> tuple[list[Waiting], list[int]]:
    """The ends of the prefixes to look at, and the rows that each adds, taking it for its like."""
    count = len(queue)
    step = -(-count // samples) or 1
    sample = list(queue[step - 1 :: step])
    rows = [waiting.rows * step for waiting in sample]
    rest = count % step
    if rest:
        sample.append(queue[-1])
        rows.append(queue[-1].rows * rest)
    return sample, rows


def sampled_each(queue: Sequence[Waiting]) -> tuple[list[Waiting], list[int]]:
    """As `sampled`, of each model by itself.

    One request of a modest model would else stand for many of the model that floods.
    """
    if len(queue) <= SAMPLES:
        return sampled(queue)
    by_model: dict[str, list[Waiting]] = {}
    for waiting in queue:
        by_model.setdefault(waiting.choices.menu.model, []).append(waiting)
    if len(by_model) == 1:
        return sampled(queue)
    each = -(-SAMPLES // len(by_model))
    found = [pair for few in by_model.values() for pair in zip(*sampled(few, each), strict=True)]
    found.sort()
    return [waiting for waiting, _ in found], [rows for _, rows in found]
