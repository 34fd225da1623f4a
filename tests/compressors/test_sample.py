"""The sample beside a finished build: a request body that holds a task's sample exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from compressors.sample import SAMPLE_FILE, write_sample
from compressors.task import Samples, Split, Task


class Odd(Task):
    name = "odd"

    def network(self) -> nn.Module:
        return nn.Identity()

    def samples(self, split: Split) -> Samples:
        if split != "validation":
            raise AssertionError(f"{split} is not to be looked at")
        random = np.random.default_rng(0)
        return Samples(
            {
                "image": random.normal(size=(3, 2, 2)).astype(np.float32),
                "half": random.normal(size=(3, 4)).astype(np.float16),
                "ids": np.array([[2**53 + 1], [2], [3]], dtype=np.int64),
                "mask": np.array([[True, False], [True, True], [False, False]]),
            },
            np.zeros(3, dtype=np.int64),
        )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_sample(Odd(), tmp_path / "models" / "odd")


def test_it_reads_back_as_the_very_same_numbers(written: Path) -> None:
    assert written.name == SAMPLE_FILE
    tensors = {tensor["name"]: tensor for tensor in json.loads(written.read_bytes())["inputs"]}
    for name, array in Odd().samples("validation").inputs.items():
        tensor = tensors[name]
        assert tensor["shape"] == [1, *array.shape[1:]]
        read = np.array(tensor["data"], dtype=array.dtype).reshape(tensor["shape"])
        np.testing.assert_array_equal(read, array[:1], strict=True)


def test_nothing_else_is_left_beside_it(written: Path) -> None:
    assert [path.name for path in written.parent.iterdir()] == [SAMPLE_FILE]
