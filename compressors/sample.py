"""One real sample as a request body, beside the variants: something to call the model with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from compressors.artifact import Workspace
from compressors.task import Array, Task
from gateway.engines import NUMPY_TYPES

SAMPLE_FILE = "sample.json"

_DATATYPES = {dtype: name for name, dtype in NUMPY_TYPES.items()}


def write_sample(task: Task, folder: Path) -> Path:
    """Write the first validation sample to `folder` as a body of the Open Inference Protocol v2.

    Raises:
        StoreError: the file cannot be written.
    """
    row = task.samples("validation").batch(slice(0, 1))
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _DATATYPES[array.dtype],
            "data": _numbers(array),
        }
        for name, array in row.inputs.items()
    ]
    with Workspace(folder) as workspace:
        return workspace.publish_file(SAMPLE_FILE, json.dumps({"inputs": inputs}).encode())


def _numbers(array: Array) -> list[object]:
    flat = array.reshape(-1)
    if not np.issubdtype(flat.dtype, np.floating):
        return list(flat.tolist())
    # The shortest text that reads back as the same number of this very type: a float32 written
    # out as a double has twice the digits and says no more.
    return [float(str(number)) for number in flat]
