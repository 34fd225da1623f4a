"""The response cache: answers of one build of one variant to one set of inputs, byte for byte.

The key holds model, variant, the digest of the build that ran, and a hash of every input with type
and shape (scar 1: a key without the variant gives one answer for two). So it never answers for
another variant than the one that was decided, and a replaced build's answers are not its
successor's. A request is routed first, as ever: constraints, limits and overload refuse it all the
same, and only the lane's work is saved. What no lane worked for costs nothing.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from gateway import aside
from gateway.engines import Tensor
from gateway.messages import InferRequest, InferResponse, Told
from gateway.wire import byte_elements
from router.constraints import Constraints
from router.decision import Decision

# Hashing a megabyte takes a millisecond: more than that is not for the event loop.
_LONG_BYTES = 256 << 10
# What an entry takes besides its tensors, about.
_ENTRY_BYTES = 1024

_Key = tuple[str, str, str, bytes]


class Answers:
    """Answers that are kept, the least recently used dropped first. Of the event loop alone.

    Args:
        limit_bytes: what they may take together. One that takes a quarter of it is not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[_Key, tuple[dict[str, Tensor], int]] = OrderedDict()
        self.bytes = 0

    async def mark(self, inputs: Mapping[str, Tensor]) -> bytes:
        """What tells these inputs from others; hashed beside the event loop where they are long."""
        if sum([tensor.nbytes for tensor in inputs.values()]) >= _LONG_BYTES:
            return await aside.run(_mark, inputs)
        return _mark(inputs)

    def find(self, model: str, variant: str, build: str, mark: bytes) -> dict[str, Tensor] | None:
        """The outputs of that build for inputs of that mark; not to be written to."""
        key = model, variant, build, mark
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def keep(
        self, model: str, variant: str, build: str, mark: bytes, outputs: Mapping[str, Tensor]
    ) -> None:
        """Keep an answer. It is copied: outputs are views of a whole batch."""
        size = _ENTRY_BYTES + sum([_size(tensor) for tensor in outputs.values()])
        key = model, variant, build, mark
        if size * 4 > self._limit_bytes or key in self._kept:
            return
        self._kept[key] = {name: tensor.copy() for name, tensor in outputs.items()}, size
        self.bytes += size
        while self.bytes > self._limit_bytes:
            _, (_, gone) = self._kept.popitem(last=False)
            self.bytes -= gone


def remembered(
    request: InferRequest,
    constraints: Constraints,
    decision: Decision,
    outputs: dict[str, Tensor],
) -> InferResponse:
    """An answer that was kept, to a request that was accepted with `decision`.

    Args:
        constraints: what the request demands, the operator's defaults included.
    """
    deadline_s = math.inf
    if constraints.max_latency_ms is not None and "latency" not in constraints.relax:
        deadline_s = request.received_s + constraints.max_latency_ms / 1000
    return InferResponse(
        outputs=outputs,
        decision=decision,
        cost_usd_per_million=0.0,
        queue_ms=(time.monotonic() - request.received_s) * 1000,
        infer_ms=0.0,
        deadline_s=deadline_s,
        told=Told(decision.queued, decision.estimate_ms, decision.predicted_latency_ms),
        cached=True,
    )


def _mark(inputs: Mapping[str, Tensor]) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for name in sorted(inputs):
        tensor = inputs[name]
        # The lengths of names, types and shapes are in the text, so that none runs into the next.
        digest.update(repr((name, str(tensor.dtype), tensor.shape)).encode())
        if tensor.dtype == np.object_:
            digest.update(byte_elements.pack(tensor))
        else:
            digest.update(np.ascontiguousarray(tensor).view(np.uint8).data)
    return digest.digest()


def _size(tensor: Tensor) -> int:
    if tensor.dtype == np.object_:
        return sum(len(each) + 64 for each in tensor.reshape(-1).tolist())
    return tensor.nbytes
