"""What the v2 codec keeps of a JSON part: it holds for other tensors, and for no other model."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import v2
from router.errors import InvalidRequest
from tests.gateway.v2_bodies import (
    IMAGE,
    LOGITS,
    MASK,
    OUTPUTS,
    tensor,
)


def binary(shape: list[int], *, size: int | None = None, **members: Any) -> tuple[bytes, bytes]:
    """A body's JSON part that announces one binary image, and the header that tells its length."""
    size = 4 * int(np.prod(shape)) if size is None else size
    text = orjson.dumps(
        {"inputs": [tensor(shape=shape, data=..., parameters={"binary_data_size": size})]} | members
    )
    return text, b"%d" % len(text)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.booleans())
def test_what_a_json_part_said_before_holds_for_other_tensors(
    rows: list[int], as_bytes: bool
) -> None:
    specs, plain = v2.Inputs((IMAGE,)), {IMAGE.name: IMAGE}
    parameters = {"binary_data_output": as_bytes, "max_latency_ms": 5}
    for seed, count in enumerate((*rows, *rows)):
        text, header = binary([count, 2, 3], parameters=parameters)
        values = np.random.default_rng(seed).random((count, 2, 3), dtype=np.float32)
        body = text + values.tobytes()
        known = v2.decode(body, header, specs, OUTPUTS)
        anew = v2.decode(body, header, plain, OUTPUTS)
        np.testing.assert_array_equal(known.inputs["image"], values)
        assert known._replace(inputs={}) == anew._replace(inputs={})
        for length in (len(body) - 4, len(body) + 4):
            other = (body + bytes(4))[:length]
            with pytest.raises(InvalidRequest):
                v2.decode(other, header, specs, OUTPUTS)


def test_what_a_json_part_said_is_kept_for_that_model_alone() -> None:
    text, header = binary([1, 2, 3])
    body = text + bytes(24)
    specs = v2.Inputs((IMAGE,))
    first = v2.decode(body, header, specs, OUTPUTS)
    assert first.outputs == tuple((spec, False) for spec in OUTPUTS.values())
    others = {"logits": LOGITS}
    assert v2.decode(body, header, specs, others).outputs == ((LOGITS, False),)
    assert specs.layouts.find(text, len(body), others) is not None
    assert v2.decode(body, header, v2.Inputs((IMAGE,)), OUTPUTS) is not first


def test_elements_that_must_be_looked_at_are_looked_at_each_time() -> None:
    specs = v2.Inputs((MASK,))
    item = tensor(name="mask", datatype="BOOL", shape=[1, 2], data=...)
    text = orjson.dumps({"inputs": [{**item, "parameters": {"binary_data_size": 2}}]})
    v2.decode(text + b"\0\1", b"%d" % len(text), specs, OUTPUTS)
    with pytest.raises(InvalidRequest):
        v2.decode(text + b"\0\2", b"%d" % len(text), specs, OUTPUTS)


def test_layouts_that_are_kept_are_bounded() -> None:
    specs = v2.Inputs((IMAGE,))
    parts = [binary([count, 2, 3]) for count in range(1, 301)]
    for count, (text, header) in enumerate(parts, 1):
        v2.decode(text + bytes(24 * count), header, specs, OUTPUTS)
    found = [
        specs.layouts.find(text, len(text) + 24 * count, OUTPUTS)
        for count, (text, _) in enumerate(parts, 1)
    ]
    assert 0 < sum(layout is not None for layout in found) <= 64
