"""Networks of thinner layers run on the engine as they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressors import lowering, technique, usertask
from compressors.interface import describe, run
from compressors.technique import Network
from tests.compressors.builds import TASK
from tests.compressors.few import Few, context_of

_SETTINGS = {
    "svd": {"ratio": 0.5, "round_to": 1, "epochs": 0},
    "cp": {"cost": 0.4, "iterations": 10, "epochs": 0},
    "tensor-train": {"ratio": 0.3, "epochs": 0},
}


@pytest.mark.parametrize("name", _SETTINGS)
def test_a_program_computes_what_the_network_does(name: str, tmp_path: Path) -> None:
    task, found = usertask.load(TASK), technique.get(name)
    interface = describe(task, task.network(), task.samples("validation"))
    config = found.Config.model_validate(_SETTINGS[name])
    network = found.apply(Network(Few().network()), context_of(Few()), config)
    program = lowering.get("openvino").lower(network, interface, tmp_path)
    inputs = task.samples("validation").batch(slice(0, 33)).inputs
    with torch.no_grad():
        expected = run(network.module.eval(), inputs, task.outputs)["logits"]
    np.testing.assert_allclose(program.infer(inputs)["logits"], expected, atol=1e-4)
