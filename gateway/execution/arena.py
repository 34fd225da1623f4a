"""An arena: memory that two processes share, for the tensors of one batch at a time.

A file without a name (`memfd_create(2)`) that both map. Tensors lie in it one after another, each
at a multiple of 64 bytes, as vector instructions like it; where they lie is told beside it, as
plain values. It grows when a batch needs more; what a large batch took beyond what is kept goes
back to the system. Elements of BYTES lie as in the v2 protocol's binary extension.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gateway.engines import Tensor
from gateway.wire.byte_elements import pack, unpack

Placed = list[Any]
"""Where one tensor lies: name, numpy's name of its type, shape, offset, bytes."""

_ALIGNED = 64
_LEAST_BYTES = 1 << 20
_KEPT_BYTES = 8 << 20


class Arena:
    """One side's view of it. Not thread-safe.

    Args:
        file: of an arena that another process made; by default a new one.
    """

    def __init__(self, file: int | None = None) -> None:
        if file is None:
            file = os.memfd_create("gearshift-lane", os.MFD_CLOEXEC)
            os.ftruncate(file, _LEAST_BYTES)
        self.file = file
        self._map = mmap.mmap(file, os.fstat(file).st_size)
        # What was handed out to be filled: it lies here already when it comes back.
        self._filled: dict[str, tuple[Tensor, Placed]] = {}

    def room(
        self, wanted: Iterable[tuple[str, np.dtype[Any], tuple[int, ...]]]
    ) -> dict[str, Tensor]:
        """Arrays in it to be filled, by name, of those whose elements all take as much; they last
        until the next `put`."""
        placed: list[Placed] = []
        end = 0
        for name, kind, shape in wanted:
            if kind.hasobject:
                continue
            at = _aligned(end)
            end = at + kind.itemsize * math.prod(shape)
            placed.append([name, kind.name, list(shape), at, end - at])
        self._reserve(end)
        self._filled = {entry[0]: (self._view(entry), entry) for entry in placed}
        return {name: view for name, (view, _) in self._filled.items()}

    def put(self, tensors: Mapping[str, Tensor], after: int = 0) -> list[Placed]:
        """Copy tensors into it, behind what ends at `after`; says where they lie."""
        filled, self._filled = self._filled, {}
        if filled and all(name in filled and filled[name][0] is tensors[name] for name in tensors):
            return [filled[name][1] for name in tensors]
        placed: list[Placed] = []
        packed: dict[str, bytes] = {}
        end = after
        for name, tensor in tensors.items():
            at = _aligned(end)
            if tensor.dtype == np.object_:
                packed[name] = pack(tensor)
                end = at + len(packed[name])
            else:
                end = at + tensor.nbytes
            placed.append([name, tensor.dtype.name, list(tensor.shape), at, end - at])
        self._reserve(end)
        for entry in placed:
            name, _, _, at, size = entry
            if name in packed:
                self._map[at : at + size] = packed[name]
            else:
                self._view(entry)[...] = tensors[name]
        return placed

    def get(self, placed: Iterable[Placed], *, copied: bool) -> dict[str, Tensor]:
        """Tensors in it, whoever put them there; views where they are not `copied`."""
        if os.fstat(self.file).st_size != len(self._map):
            self._map = mmap.mmap(self.file, os.fstat(self.file).st_size)
        return {entry[0]: self._view(entry).copy() if copied else self._view(entry)
                for entry in placed}  # fmt: skip

    def release(self, end: int) -> None:
        """Nothing in it is needed any more, of which the last byte was at `end`."""
        if end > _KEPT_BYTES:
            self._map.madvise(mmap.MADV_REMOVE, _KEPT_BYTES, len(self._map) - _KEPT_BYTES)

    def close(self) -> None:
        """Let go of the file; views that are still held keep the memory."""
        os.close(self.file)

    def _reserve(self, end: int) -> None:
        size = os.fstat(self.file).st_size
        if end > size:
            size = 1 << (end - 1).bit_length()
            os.ftruncate(self.file, size)
        if size != len(self._map):
            # Not resized: views of the old mapping may still be held.
            self._map = mmap.mmap(self.file, size)

    def _view(self, entry: Placed) -> Tensor:
        name, kind, shape, at, size = entry
        if kind == "object":
            raw = memoryview(self._map)[at : at + size]
            return unpack(name, raw, tuple(shape), math.prod(shape))
        return np.frombuffer(self._map, kind, math.prod(shape), at).reshape(shape)


def end_of(placed: Iterable[Placed]) -> int:
    """Where the last of these tensors ends."""
    return max((at + size for _, _, _, at, size in placed), default=0)


def _aligned(position: int) -> int:
    return -(-position // _ALIGNED) * _ALIGNED
