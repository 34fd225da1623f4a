"""Where the tensors of a binary body lie, by its JSON part, which is decoded once.

A client that sends binary tensors of one shape says the same before them in request after request,
and everything that is checked of it follows from those bytes and the model's inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gateway.engines import Tensor

# Kept for one model, and the longest of them.
_MOST_KEPT = 64
_LONGEST_BYTES = 1024


class Place(NamedTuple):
    """Where one tensor of so many elements lies in a body."""

    name: str
    kind: np.dtype[Any]
    elements: int
    shape: tuple[int, ...]
    start: int


class Layout(NamedTuple):
    """What a JSON part says.

    Attributes:
        places: of every input; none between them and none behind the last one.
        body_bytes: the length of a body that it fits.
        said: what else it says, in the form of whoever decodes it.
        outputs: the model's outputs, which it was checked against.
    """

    places: tuple[Place, ...]
    body_bytes: int
    said: Any
    outputs: Mapping[str, Any]

    def tensors(self, body: bytes) -> dict[str, Tensor]:
        """The inputs, as views of `body`."""
        return {
            name: np.frombuffer(body, kind, elements, start).reshape(shape)
            for name, kind, elements, shape, start in self.places
        }


class Layouts:
    """Those of one model's inputs, by the bytes of the JSON part."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Layout] = {}

    def find(self, text: bytes, body_bytes: int, outputs: Mapping[str, Any]) -> Layout | None:
        """What `text` says of a body of that length, if it came before."""
        layout = self._kept.get(text)
        if layout is None or layout.body_bytes != body_bytes or layout.outputs is not outputs:
            return None
        return layout

    def keep(self, text: bytes, layout: Layout) -> None:
        """Keep what `text` says. Elements are not checked again: none of their kinds needs it."""
        if len(text) > _LONGEST_BYTES or any(place.kind.kind in "Ob" for place in layout.places):
            return
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[text] = layout
