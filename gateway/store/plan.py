"""What a look at the store asks of its copy: a pure function of what lies here and there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Key = tuple[str, str]
"""A model and one of its variants."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, each in the order of the names."""

    fetch: tuple[Key, ...]
    remove: tuple[Key, ...]


def plan(there: Mapping[Key, str | None], here: Mapping[Key, str]) -> Plan:
    """What makes the copy like the store.

    A variant without a manifest is being written, or deleted file by file: what is here of it
    stays, until all of it is gone there.

    Args:
        there: the digest of each variant's manifest in the store; None where it has none, or none
            that can be read now.
        here: the same of the copy.
    """
    fetch = [key for key, digest in there.items() if digest not in (None, here.get(key))]
    return Plan(tuple(sorted(fetch)), tuple(sorted(here.keys() - there.keys())))
