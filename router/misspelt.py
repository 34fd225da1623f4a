"""Names that are nearly a constraint's: misspelt and silently ignored, one is a broken promise.

Keys of v2's `parameters` belong to whoever knows them, and most are another extension's. One is
taken for a constraint's that has its letters but for one or two that were left out, added, changed
or swapped, whatever the case and the separators; that is the beginning of one; or that begins with
what one is about and goes on otherwise (`max_latency_seconds`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import combinations

from router.errors import InvalidRequest

# Longer ones are nobody's typing error.
_LONGEST = 40
# So many letters and more may hold two slips, and shorter ones one.
_LONG = 10
# A beginning of so many letters says what is meant.
_BEGINNING = 6
# What a key is about, where it says more than that.
_ABOUT = ("maxlatency", "minaccuracy", "maxcost", "timeout")
_NO_LETTER = re.compile(r"[^a-z0-9]")
_OURS = "gearshift"
# Each may take some tens of microseconds to look at; no client sends a tenth of these.
_MOST_KEYS = 100


class Spelling:
    """Finds what was meant.

    Args:
        keys: those that there are.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        self._plain = {_plain(key): key for key in keys}
        self._longest = max(map(len, self._plain))
        self._slips: dict[int, dict[str, str]] = {1: {}, 2: {}}
        for plain, key in self._plain.items():
            for slips, found in self._slips.items():
                found |= dict.fromkeys(_without(plain, slips), key)
        # With a slip in that beginning as well.
        self._about = [
            (len(about), frozenset(_without(about, 1)), key)
            for about in _ABOUT
            for plain, key in self._plain.items()
            if plain.startswith(about)
        ]
        self._known = lru_cache(maxsize=4096)(self._meant)

    def meant(self, key: str) -> str | None:
        """The key that was meant by another one; None where that is somebody else's."""
        # Before it is looked up: what is looked up is kept.
        return self._known(key) if len(key) <= _LONGEST else None

    def check(self, field: str, parameters: Mapping[str, object]) -> None:
        """Refuse keys that are nearly one of ours, or that say they are and are none.

        Args:
            field: what a request calls `parameters`.

        Raises:
            InvalidRequest: there is one, or more keys than anybody sends.
        """
        if len(parameters) > _MOST_KEYS:
            raise InvalidRequest(
                field, f"{len(parameters)} members", f"at most {_MOST_KEYS} members"
            )
        for key in sorted(parameters.keys() - self._keys):
            if self.meant(key) is not None or key.lower().startswith(_OURS):
                raise self.unknown(f"{field}.{key[:_LONGEST]}", key, parameters[key])

    def unknown(self, field: str, key: str, received: object) -> InvalidRequest:
        """The refusal of a key that there is not."""
        nearest = self.meant(key) or ", ".join(sorted(self._keys))
        return InvalidRequest(field, received, f"a constraint that there is ({nearest})")

    def _meant(self, key: str) -> str | None:
        plain = _plain(key)
        if plain in self._plain:
            return self._plain[plain]
        if len(plain) >= _BEGINNING:
            for whole, known in self._plain.items():
                if whole.startswith(plain):
                    return known
        slips = 2 if len(plain) >= _LONG else 1
        if len(plain) <= self._longest + slips:
            for part in _without(plain, slips):
                if part in self._slips[slips]:
                    return self._slips[slips][part]
        for letters, spelt, known in self._about:
            beginnings = {plain[: letters + more] for more in (-1, 0, 1)}
            if any(not spelt.isdisjoint(_without(one, 1)) for one in beginnings):
                return known
        return None


def _plain(key: str) -> str:
    return _NO_LETTER.sub("", key.lower()).removeprefix(_OURS)


def _without(plain: str, most: int) -> Iterator[str]:
    """`plain` itself, and without any one of its letters, or any `most` of them."""
    for count in range(min(most, len(plain)) + 1):
        for kept in combinations(plain, len(plain) - count):
            yield "".join(kept)
