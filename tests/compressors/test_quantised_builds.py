"""Quantised variants out of the whole build: what their cards say, from layers and from a graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.compressors.builds import TASK, build_of
from tests.perceptron_task import Perceptron

PERCEPTRON = str(Path(TASK).with_name("perceptron_task.py"))
RECIPES = {
    "fp32": "",
    "int8": 'steps = [{ technique = "int8", calibration_samples = 50 }]',
    "int8-dynamic": 'steps = [{ technique = "int8-dynamic" }]',
    "int8-weights": 'steps = [{ technique = "int8-weights" }]',
    "int4-weights": 'steps = [{ technique = "int4-weights", group_size = 32 }]',
    "qat": 'steps = [{ technique = "qat", epochs = 1, calibration_samples = 50 }]',
    "int8-mixed": 'steps = [{ technique = "int8-mixed", keep = 1, calibration_samples = 50 }]',
}
# Arithmetic, stored weights, and how many of three linear layers ran in what.
SAID = {
    "int8": ("int8", None, {"int8": 3}),
    "int8-dynamic": ("int8", None, {"int8": 3}),
    "int8-weights": ("fp32", "int8", {"fp32": 3}),
    "int4-weights": ("fp32", "int4", {"fp32": 3}),
    "qat": ("int8", None, {"int8": 3}),
    "int8-mixed": ("int8", None, {"int8": 2, "fp32": 1}),
}


@pytest.fixture
def graph_task(tmp_path: Path) -> str:
    """The perceptron as an exported program on disk: a graph without layers."""
    batch = torch.export.Dim("batch", min=1)
    example = (torch.zeros(4, 1, 8, 8),)
    program = torch.export.export(Perceptron().network(), example, dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "perceptron.pt2")
    (tmp_path / "graph_task.py").write_text(
        "from pathlib import Path\n"
        "from compressors.sources import exported\n"
        "from tests.perceptron_task import Perceptron\n\n\n"
        "class Graph(Perceptron):\n"
        "    def network(self):\n"
        '        return exported(Path(__file__).with_name("perceptron.pt2"))\n'
    )
    return f"{tmp_path / 'graph_task.py'}:Graph"


@pytest.mark.parametrize("source", ["layers", "graph"])
def test_cards_say_what_arithmetic_and_what_weights(
    source: str, graph_task: str, tmp_path: Path
) -> None:
    needs_layers = {"qat", "int8-mixed"}
    recipes = {
        n: text for n, text in RECIPES.items() if source == "layers" or n not in needs_layers
    }
    outcomes = build_of(
        "".join(f"[variants.{name}]\n{text}\n" for name, text in recipes.items()),
        tmp_path / "store",
        PERCEPTRON if source == "layers" else graph_task,
    )
    assert [o.reason for o in outcomes.values() if o.state != "built"] == []
    cards = {name: outcome.card for name, outcome in outcomes.items() if outcome.card}
    reference = cards.pop("fp32")
    for name, card in cards.items():
        assert (card.precision, card.weights, card.engine.kernels) == SAID[name], name
        assert card.bytes_on_disk < 0.9 * reference.bytes_on_disk, name
        assert card.paired.value > -0.03, name
        assert card.parameters >= reference.parameters > 0, name
