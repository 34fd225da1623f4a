"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import laws

laws.register()

# For networks as small as the tests', handing work to a second thread costs more than it saves, and
# on a busy machine many times as much. Said to torch before anything imports it, so that it holds
# for every test and the processes they start; the tests of the router run without torch.
os.environ["OMP_NUM_THREADS"] = "1"

TINY_RECIPES = """
[variants.fp32]
description = "the network as it was trained"

[variants.bf16]
description = "16-bit brain floats"
steps = [{ technique = "bf16" }]

[variants.int8]
description = "8-bit integers"
steps = [{ technique = "int8", calibration_samples = 100 }]

[variants.distilled]
description = "the student, taught by the reference"
steps = [{ technique = "distil", epochs = 20, learning_rate = 0.02 }]
"""


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the model `tiny`, built once a session by the real pipeline: fp32, int8, a
    smaller `distilled`, and bf16 where the CPU has it. Tests must not change it: copy it."""
    # Imported here: the tests of the router run without torch.
    from compressors import measure, usertask
    from compressors.build import Options, build
    from compressors.progress import Silent
    from compressors.recipe import parse

    store = tmp_path_factory.mktemp("store")
    task = usertask.load(str(Path(__file__).parent / "tiny_task.py"))
    options = Options(store, engines=("openvino",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS_PER_BATCH_SIZE", 0.1)
        outcomes = build(task, parse(TINY_RECIPES, "tiny recipes"), options, Silent())
    assert not [o.reason for o in outcomes if o.state == "failed"]
    return store
