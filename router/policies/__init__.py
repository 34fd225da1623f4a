"""Policies: what is best among what is allowed. One file = one policy; its name is public.

To add one, put a file here that defines `rank`:

    def rank(options, objective, menu, margin) -> Ranking: ...

A policy is stateless. It is given at least one option, each of which meets every constraint, and
puts them in order, best first: the first answers, and the others are what the dispatcher may fall
back on when time runs out. It must not depend on the order in which options come.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import NamedTuple

from router.constraints import Objective
from router.decision import Reason
from router.feasible import Option
from router.menu import Menu


class Ranking(NamedTuple):
    """Options best first, with the reason for the first: a word, and a sentence."""

    ordered: Sequence[Option]
    reason: Reason
    why: str


Rank = Callable[[Sequence[Option], Objective, Menu, float], Ranking]


def names() -> list[str]:
    """The policies there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Rank:
    """The policy called `name`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in names():
        raise ValueError(f"unknown policy {name!r}; there are {', '.join(names())}")
    rank: Rank = importlib.import_module(f"{__name__}.{name}").rank
    return rank
