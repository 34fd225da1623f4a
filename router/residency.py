"""residency(): which variants stay loaded under a memory limit, decided from the recent demand.

Every model keeps one variant. The room that is left goes to what is wanted most for each byte.
Where that is taken, a swap is made only if it is clearly better, because a swap is dear: loading
and warming takes seconds of a core that requests could have used, and the variant that leaves
must first be drained. So what is loaded gives way only

- to what is wanted `factor` times as much as it. Demand is an estimate from finite traffic. With a
  factor of 1.5 an error of 20 % either way cannot cause a swap that the true demand would not
  justify (1.2 / 0.8 = 1.5), so every swap raises the true demand that is met, and no set that was
  left for a better one can come back;
- after it was loaded for `least_s`: demand that jumps may turn the sets over, but never more often.

What is loaded is never freed for its own sake: memory within the limit is there to be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import NamedTuple

FACTOR = 1.5

Key = tuple[str, str]
"""A model and one of its variants."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One variant that can be loaded.

    Attributes:
        bytes: what it takes while it is loaded, on all lanes together.
        demand: how much it was wanted lately, loaded or not, in any unit that all share.
        rank: its place among its model's variants where demand says nothing; 0 comes first.
        loaded_s: since when it is loaded; None when it is not.
    """

    model: str
    variant: str
    bytes: int
    demand: float = 0.0
    rank: int = 0
    loaded_s: float | None = None

    @property
    def key(self) -> Key:
        return self.model, self.variant


class Plan(NamedTuple):
    """What to load, the most wanted for each byte first, and what to free."""

    load: tuple[Key, ...] = ()
    free: tuple[Key, ...] = ()


class DoesNotFit(Exception):
    """Not even the smallest variant of every model fits; `least_bytes` is what they take."""

    def __init__(self, limit_bytes: int, least_bytes: int) -> None:
        super().__init__(
            f"one variant of every model takes {least_bytes} bytes at least, "
            f"the limit is {limit_bytes}"
        )
        self.limit_bytes = limit_bytes
        self.least_bytes = least_bytes


def residency(
    candidates: Iterable[Candidate],
    limit_bytes: int | None,
    now_s: float,
    *,
    factor: float = FACTOR,
    least_s: float = 30.0,
) -> Plan:
    """The changes that make the best of `limit_bytes`; None is no limit.

    Carrying a plan out and planning again at the same moment yields an empty plan. The order of
    `candidates` does not matter.

    Args:
        factor, least_s: see the module's docstring.

    Raises:
        DoesNotFit: the limit does not hold one variant of every model.
    """
    known = sorted(candidates, key=lambda candidate: candidate.key)
    before = {candidate for candidate in known if candidate.loaded_s is not None}
    if limit_bytes is None:
        held = set(known)
    else:
        # "More than", so that what is loaded at this very moment stays even where `least_s` is 0.
        settled = {c for c in before if c.loaded_s is not None and now_s - c.loaded_s > least_s}
        sets = _Sets(known, before, limit_bytes)
        sets.make_room()
        sets.cover()
        sets.fill()
        while sets.swap(settled, factor):
            sets.fill()
        held = sets.held
    return Plan(
        load=tuple([c.key for c in sorted(held - before, key=_worth)]),
        free=tuple(sorted([c.key for c in before - held])),
    )


def _worth(candidate: Candidate) -> tuple[float, int, int, Key]:
    """The order in which room is given: the most demand for each byte first."""
    return -candidate.demand / candidate.bytes, candidate.rank, candidate.bytes, candidate.key


def _demand(candidates: Iterable[Candidate]) -> float:
    # Exactly rounded: with an ordinary sum two swaps could each look better than the other.
    return fsum([candidate.demand for candidate in candidates])


def _bytes(candidates: Iterable[Candidate]) -> int:
    return sum(candidate.bytes for candidate in candidates)


class _Sets:
    """What is held while a plan is made, and what could be. Starts with what is loaded.

    Raises:
        DoesNotFit: the limit does not hold one variant of every model.
    """

    def __init__(self, known: Sequence[Candidate], held: Iterable[Candidate], limit: int) -> None:
        self.held = set(held)
        self._known = sorted(known, key=_worth)
        self._limit = limit
        self._smallest: dict[str, int] = {}
        for candidate in known:
            least = self._smallest.get(candidate.model, candidate.bytes)
            self._smallest[candidate.model] = min(least, candidate.bytes)
        if (least := sum(self._smallest.values())) > limit:
            raise DoesNotFit(limit, least)

    def make_room(self) -> None:
        """Let go of what does not fit, however young: the limit, and one variant for every model.

        Needed only where something else than a plan changed what is loaded: a smaller limit, or a
        model whose only variant failed.
        """
        while self._spare() < 0:
            others = [c for c in self.held if self._beside(c)]
            self.held.remove(max(others or self.held, key=_worth))

    def cover(self) -> None:
        """Give every model that has none the variant that is wanted most among those that fit."""
        missing = self._smallest.keys() - {c.model for c in self.held}
        mine = {model: [c for c in self._known if c.model == model] for model in missing}
        for model in sorted(missing, key=lambda model: (-_demand(mine[model]), model)):
            room = self._spare() + self._smallest[model]  # what is kept for this one is free
            fitting = [c for c in mine[model] if c.bytes <= room]
            self.held.add(min(fitting, key=lambda c: (-c.demand, c.rank, c.key)))

    def fill(self) -> None:
        """Use the room that is left."""
        self.held.update(self._filling(self._spare()))

    def swap(self, settled: set[Candidate], factor: float) -> bool:
        """Make the best swap of held ones in `settled` for others; False when none is worth it."""
        # The least worth first; every one of them may have to go to make way for a large one. Among
        # equals, a model's last variant goes last: another would have to be loaded in its place
        # first, for which there may be no room.
        victims = [c for c in reversed(self._known) if c in self.held and c in settled]
        victims.sort(key=lambda c: (c.demand / c.bytes, not self._beside(c)))
        swaps: list[tuple[list[Candidate], list[Candidate]]] = []
        for newcomer in self._known:
            if newcomer not in self.held and newcomer.demand > 0:
                out = self._way_for(newcomer, victims)
                room = self._spare() + _bytes(out) - newcomer.bytes
                if room >= 0:
                    swaps.append((out, [newcomer, *self._filling(room, newcomer)]))
        for victim in victims:
            swaps.append(([victim], self._filling(self._spare() + victim.bytes)))
        best, most = None, 0.0
        for out, come in swaps:
            gain = _demand(come) - factor * _demand(out)
            if gain > most and self._covers(out, come):
                best, most = (out, come), gain
        if best is None:
            return False
        self.held.difference_update(best[0])
        self.held.update(best[1])
        return True

    def _spare(self) -> int:
        """Room that is left when every model that holds nothing is given its smallest."""
        missing = self._smallest.keys() - {c.model for c in self.held}
        return self._limit - _bytes(self.held) - sum(self._smallest[model] for model in missing)

    def _beside(self, candidate: Candidate) -> list[Candidate]:
        return [c for c in self.held if c.model == candidate.model and c is not candidate]

    def _covers(self, out: Sequence[Candidate], come: Sequence[Candidate]) -> bool:
        """Whether every model that loses something still has something."""
        left = {c.model for c in (*(self.held - set(out)), *come)}
        return all(c.model in left for c in out)

    def _filling(self, room: int, *taken: Candidate) -> list[Candidate]:
        """What is not held and goes into `room`, the most demand for each byte first."""
        chosen: list[Candidate] = []
        for candidate in self._known:
            if candidate.bytes <= room and candidate not in self.held and candidate not in taken:
                chosen.append(candidate)
                room -= candidate.bytes
        return chosen

    def _way_for(self, newcomer: Candidate, victims: Sequence[Candidate]) -> list[Candidate]:
        """Those of `victims` that should go so that `newcomer` fits, and no more than needed.

        Too few where they do not suffice.
        """
        need = newcomer.bytes - self._spare()
        out: list[Candidate] = []
        for victim in victims:
            if _bytes(out) >= need:
                break
            if self._covers([*out, victim], [newcomer]):
                out.append(victim)
        for victim in sorted(out, key=lambda c: (-c.demand, c.key)):
            if _bytes(out) - victim.bytes >= need:
                out.remove(victim)
        return out
