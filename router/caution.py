"""Caution: how much longer than planned a wait is taken to be when a request is let in.

Under overload the queue is as long as the deadlines allow, so everybody that is let in is only just
in time, and whatever takes longer than planned makes some of them late. They could have been told
so at once. So the wait is stretched until all but a few of those that are let in make it: by a lot
for each that does not, and back by a little for each that does, which settles where the share of
the lost is the one that is aimed at (Robbins & Monro 1951, "A stochastic approximation method").
Who finds lanes free does not wait, so no request is refused for caution's sake on an idle machine.
"""

from __future__ import annotations

# Of those that are let in behind others, how many may be lost.
AIM = 0.002
# Of the wait, for each that is lost; a batch that takes too long loses several at once.
_STEP = 0.04
_MOST = 2.0


class Caution:
    """Not thread-safe: one thread observes; others may read `share`.

    Attributes:
        share: what is added to a planned wait, as a share of it.
    """

    __slots__ = ("share",)

    def __init__(self) -> None:
        self.share = 0.0

    def observe(self, lost: bool) -> None:
        """A request that was let in behind others was answered in time, or lost."""
        step = _STEP if lost else -_STEP * AIM / (1 - AIM)
        self.share = min(_MOST, max(0.0, self.share + step))
