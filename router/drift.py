"""Drift: how much longer batches take now than their cards say.

The factor is that of the whole machine times what is left for the variant. That slowdowns are
mostly the machine's, whatever runs on it, is the idea of ALERT's global slowdown factor (Wan et
al., USENIX ATC 2020): one batch of any variant then tells of all the others, those included that
have not run since. ALERT filters it with a Kalman filter; here it is a median, which a batch that
took five times as long does not move, over a window that is cut where the speed changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from math import exp, log

Key = tuple[str, str]
"""Model and variant."""

# Batches that make a factor: enough for a median that noise hardly moves.
WINDOW = 16
# What is older is forgotten: a variant that was slow once is believed again, and so tried again.
OLDEST_S = 30.0
# Fewer make no median that withstands one of them being far off.
_FEWEST = 3
# A change point is sought where batches are off by more than 25 % to the same side, in a row.
_OFF = log(1.25)
# Then it is told from noise as by a CUSUM test for a speed twice or half as great: what each is off
# beyond half of that, or what is usual, adds up. In units of what batches are usually off: 3 that
# are far off suffice, while one or two never do, however far.
_USUALLY_OFF_WINDOW = 64
_EIGHTH = _USUALLY_OFF_WINDOW // 8
_LEAST_USUALLY_OFF = 0.15
_REFERENCE = 1.1
_CLIP = 3.0
_ALARM = 3.5
_NORMAL_MAD = 1.4826


# Plain tuples, as some are made for each batch: when, whose, and the logarithm of its ratio.
_Batch = tuple[float, Key, float]
_Left = tuple[float, float]
# The machine's factor and until when it holds; by key the variant's own, and until when.
_State = tuple[float, float, Mapping[Key, tuple[float, float]]]


class _Run:
    """The last batches in a row that were off to the same side."""

    __slots__ = ("length", "total")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.length = 0
        self.total = 0.0

    def changed(self, off: float, usually: float) -> bool:
        """Whether, with one more that is `off`, the speed is held to have changed."""
        if -_OFF <= off <= _OFF:
            self.clear()
            return False
        excess = min(abs(off), _CLIP * usually) - max(_OFF, _REFERENCE * usually)
        if off * self.total < 0:
            self.clear()
        self.length += 1
        # Signed, for the side; never 0, which would forget it.
        size = max(abs(self.total) + excess, 1e-9)
        self.total = size if off > 0 else -size
        return self.length >= _FEWEST and size > _ALARM * usually


class Drift:
    """Not thread-safe: one thread observes; others may read the factors.

    Attributes:
        changes: how often the machine's speed was held to have changed.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._number = 0
        self._machine = 0.0
        self._recent: deque[_Batch] = deque(maxlen=WINDOW)
        self._run = _Run()
        self._usual: deque[float] = deque(maxlen=_USUALLY_OFF_WINDOW)
        self._usually = _LEAST_USUALLY_OFF
        # Of each variant: what is left of its batches beyond the other variants', and their run.
        self._left: dict[Key, deque[_Left]] = {}
        self._runs: dict[Key, _Run] = {}
        self._own: dict[Key, float] = {}
        # What other threads may read: replaced as a whole, never changed.
        self._state: _State = (1.0, 0.0, {})
        # Until when nothing need be forgotten of any variant.
        self._all_until_s = 0.0

    def factor(self, key: Key, now_s: float) -> float:
        """How many times longer than its card's median a batch of this variant takes now."""
        machine, until_s, own = self._state
        known = own.get(key)
        factor = machine if now_s <= until_s else 1.0
        return factor * known[0] if known is not None and now_s <= known[1] else factor

    def factors(self, model: str, variants: Iterable[str], now_s: float) -> dict[str, float]:
        """`factor` by variant."""
        return {variant: self.factor((model, variant), now_s) for variant in variants}

    def observe(self, key: Key, expected_ms: float, actual_ms: float, now_s: float) -> None:
        """A batch that succeeded took `actual_ms`, where its card's median says `expected_ms`.

        Both are above 0; `now_s` never falls.
        """
        self._forget(now_s)
        self._number += 1
        took = log(actual_ms / expected_ms)
        own = self._own
        off = took - self._machine - own.get(key, 0.0)
        self._usual.append(abs(off))
        if not self._number % _EIGHTH and len(self._usual) >= _EIGHTH:
            usually = _NORMAL_MAD * _median(list(self._usual))
            self._usually = max(_LEAST_USUALLY_OFF, usually)
        recent = self._recent
        recent.append((now_s, key, took))
        if self._run.changed(off, self._usually):
            self._cut()
        machine, others = [], []
        for _, other, other_took in recent:
            less = other_took - own.get(other, 0.0)
            machine.append(less)
            if other != key:
                others.append(less)
        self._machine = _median(machine) if len(machine) >= _FEWEST else 0.0
        self._attribute(key, took, others, now_s)
        until_s = now_s + OLDEST_S
        self._state = (
            exp(self._machine),
            until_s,
            {**self._state[2], key: (exp(own.get(key, 0.0)), until_s)},
        )

    def forget(self, key: Key) -> None:
        """What was learnt of `key` alone says nothing of what has that name now."""
        for kept in (self._left, self._runs, self._own):
            kept.pop(key, None)
        machine, until_s, own = self._state
        self._state = machine, until_s, {k: v for k, v in own.items() if k != key}

    def _forget(self, now_s: float) -> None:
        """Drop what is too old."""
        oldest_s = now_s - OLDEST_S
        recent = self._recent
        if recent and recent[-1][0] < oldest_s:
            self._machine = 0.0
            self._run.clear()
        while recent and recent[0][0] < oldest_s:
            recent.popleft()
        if now_s <= self._all_until_s:
            return
        machine, until_s, state = self._state
        fresh = {key: own for key, own in state.items() if own[1] >= now_s}
        for key in state.keys() - fresh.keys():
            for kept in (self._left, self._runs, self._own):
                kept.pop(key, None)
        self._state = (machine, until_s, fresh)
        self._all_until_s = min((until for _, until in fresh.values()), default=now_s + OLDEST_S)

    def _cut(self) -> None:
        """The machine's speed changed with the first batch of the run: forget what was before."""
        self.changes += 1
        while len(self._recent) > self._run.length:
            self._recent.popleft()
        self._run.clear()

    def _attribute(self, key: Key, took: float, others: list[float], now_s: float) -> None:
        """Learn what of a batch is its variant's own: what it took beyond `others` lately.

        Its own batches are no measure: where a variant runs alone, all is the machine's. And what
        most variants have in common is the machine's too: it is taken from each.
        """
        left = self._left.get(key)
        if left is None:
            left = self._left[key] = deque(maxlen=WINDOW)
            self._runs[key] = _Run()
        own = self._own
        if len(others) >= _FEWEST - 1:
            common = _median([own.get(ran, 0.0) for ran in {batch[1] for batch in self._recent}])
            beyond = took - _median(others) - common
            left.append((now_s, beyond))
            run = self._runs[key]
            if run.changed(beyond - own.get(key, 0.0), self._usually):
                while len(left) > run.length:
                    left.popleft()
                run.clear()
        while left and left[0][0] < now_s - OLDEST_S:
            left.popleft()
        count = len(left)
        if count < _FEWEST:
            own.pop(key, None)
        else:
            # Shrunk while there are few: half of it with 3, all but a fifteenth with 16.
            own[key] = _median([beyond for _, beyond in left]) * (count - 2) / (count - 1)


def _median(values: list[float]) -> float:
    values.sort()
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
