"""When two answers agree: by what a caller would make of them."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.shadow import agreement
from router.card import TensorSpec

SCORES = TensorSpec(name="y", datatype="FP32", shape=(-1, 3))
NUMBER = TensorSpec(name="y", datatype="FP32", shape=(-1, 1))
TOKENS = TensorSpec(name="y", datatype="INT64", shape=(-1, -1))


@pytest.mark.parametrize(
    ("spec", "one", "other", "alike"),
    [
        (SCORES, [[0.1, 0.8, 0.1], [1, 0, 0]], [[0.3, 0.4, 0.3], [0, 1, 0]], [True, False]),
        (NUMBER, [[1.0], [1.0], [np.nan]], [[1.02], [1.2], [np.nan]], [True, False, True]),
        (TOKENS, [[1, 2], [3, 4]], [[1, 2], [3, 5]], [True, False]),
        (TOKENS, [[1, 2]], [[1, 2, 3]], [False]),
    ],
)
def test_rows_agree(
    spec: TensorSpec, one: list[object], other: list[object], alike: list[bool]
) -> None:
    kind = np.int64 if spec is TOKENS else np.float32
    answers = ({"y": np.array(one, kind)}, {"y": np.array(other, kind)})
    assert agreement(*answers, (spec,), len(one)).tolist() == alike
