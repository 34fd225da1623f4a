"""Builds with real parts: the tiny task, real engines, a real store, faults made for real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compressors import artifact, machine
from compressors.build import Outcome
from compressors.errors import BuildError
from compressors.measure import Scores
from tests.compressors.builds import HERE, TASK, build_of, extra_techniques
from tests.conftest import TINY_RECIPES

FAULTY = sorted(
    path.stem.replace("_", "-")
    for path in (HERE / "faulty").glob("*.py")
    if path.stem != "__init__"
)
REFERENCE = "[variants.fp32]\n"


@pytest.fixture(autouse=True)
def _techniques() -> Iterator[None]:
    with extra_techniques():
        yield


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    """A copy of the tiny store, to be changed."""
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """One build of the reference, every faulty technique, and a sound variant at the end."""
    recipes = REFERENCE + "".join(
        f'[variants.{name}]\nsteps = [{{ technique = "{name}" }}]\n' for name in FAULTY
    )
    recipes += '[variants.child]\nfrom = "raises"\nsteps = [{ technique = "int8" }]\n'
    recipes += '[variants.int8]\nsteps = [{ technique = "int8" }]\n'
    with extra_techniques():
        return build_of(recipes, tmp_path_factory.mktemp("faulty"))


def test_cards_say_what_was_built(tiny_store: Path) -> None:
    cards = {path.name: artifact.read(path) for path in sorted((tiny_store / "tiny").iterdir())}
    assert {"fp32", "int8", "distilled"} <= set(cards)
    for name, card in cards.items():
        assert (card.model, card.variant, card.reference) == ("tiny", name, "fp32")
        assert card.task.samples == card.task.clusters == 397
        assert card.accuracy.value > 0.9
        assert [point.batch for point in card.latency] == [1, 2, 4, 8, 16, 32]
        assert card.bytes_on_disk == sum(
            (tiny_store / "tiny" / name / file).stat().st_size
            for file in ("model.xml", "model.bin")
        )
        assert set(card.engine.kernels) == {card.precision}
        assert card.machine.fingerprint == machine.describe().fingerprint
        assert card.resident_bytes < 40e6  # one more variant, not the engine itself
    fp32, int8 = cards["fp32"], cards["int8"]
    assert fp32.recipe == ()
    assert fp32.parent_digest == int8.parent_digest
    assert (fp32.paired.value, fp32.paired.low < 0) == (0, True)
    assert int8.recipe[0].settings["calibration_samples"] == 100
    assert int8.bytes_on_disk < fp32.bytes_on_disk
    assert cards["distilled"].parameters < fp32.parameters


def test_scores_are_kept_per_sample(tiny_store: Path) -> None:
    fp32, int8 = (Scores.load(tiny_store / "tiny" / name) for name in ("fp32", "int8"))
    assert fp32.values.shape == (397,)
    assert set(np.unique(fp32.values)) <= {0.0, 1.0}
    card = artifact.read(tiny_store / "tiny" / "int8")
    assert card.accuracy.value == int8.values.mean()
    assert card.paired.value == pytest.approx(int8.values.mean() - fp32.values.mean())


def test_no_workspace_is_left(tiny_store: Path) -> None:
    assert not [path for path in (tiny_store / "tiny").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("changes-nothing", "NothingChanged: changes-nothing ran without an error"),
        ("makes-nan", "NotFinite: the network: output 'logits'"),
        ("drops-a-class", r"ShapeChanged: the network: output 'logits': expected float32 (64, 10)"),
        ("exports-otherwise", "ExportMismatch: output 'logits': relative error"),
        (
            "claims-int8",
            "WrongKernels: the variant claims int8, and of its operations ran: 6 in fp32",
        ),
        ("untraceable", "BuildError: torch.export cannot trace"),
        ("exhausts-memory", "BuildError: exhausts-memory: out of memory: "),
        ("raises", "BuildError: raises: IndexError: list index out of range"),
        ("child", "BuildError: raises: IndexError: list index out of range"),
    ],
)
def test_each_fault_has_its_name(outcomes: dict[str, Outcome], variant: str, reason: str) -> None:
    assert outcomes[variant].state == "failed"
    assert outcomes[variant].reason.startswith(reason)


def test_every_faulty_technique_is_tried(outcomes: dict[str, Outcome]) -> None:
    failed = {name for name, outcome in outcomes.items() if outcome.state == "failed"}
    assert failed == {*FAULTY, "child"}


def test_the_rest_is_built_all_the_same(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["int8"].state == "built"


def test_a_second_build_reuses_everything(store: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()}
    states = {name: outcome.state for name, outcome in build_of(TINY_RECIPES, store).items()}
    assert set(states.values()) <= {"reused", "skipped"}
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()} == before


def test_another_recipe_is_told_and_not_written(store: Path) -> None:
    other = TINY_RECIPES.replace("calibration_samples = 100", "calibration_samples = 50")
    outcome = build_of(other, store)["int8"]
    assert outcome.state == "failed"
    assert "its recipe was int8 calibration_samples=100" in outcome.reason
    assert "--replace" in outcome.reason
    assert artifact.read(store / "tiny" / "int8").recipe[0].settings["calibration_samples"] == 100

    assert build_of(other, store, replace=True)["int8"].state == "built"
    assert artifact.read(store / "tiny" / "int8").recipe[0].settings["calibration_samples"] == 50


def test_a_damaged_variant_is_told_and_can_be_replaced(store: Path) -> None:
    with (store / "tiny" / "int8" / "model.bin").open("ab") as stream:
        stream.write(b"x")
    outcome = build_of(TINY_RECIPES, store)["int8"]
    assert (outcome.state, "model.bin has digest" in outcome.reason) == ("failed", True)
    assert build_of(TINY_RECIPES, store, replace=True)["int8"].state == "built"


def test_other_weights_make_every_variant_another(store: Path, tmp_path: Path) -> None:
    source = Path(TASK).read_text().replace("_SEED = 7", "_SEED = 8")
    (tmp_path / "other.py").write_text(source)
    with pytest.raises(BuildError, match="the reference network has other weights now"):
        build_of(TINY_RECIPES, store, task=str(tmp_path / "other.py"))


def test_without_a_reference_the_build_stops(tmp_path: Path) -> None:
    (tmp_path / "branchy.py").write_text(
        Path(TASK)
        .read_text()
        .replace(
            "return network.eval()\n\n    def samples", "return Moody(network)\n\n    def samples"
        )
        + "\n\nclass Moody(nn.Module):\n"
        "    def __init__(self, inner):\n        super().__init__()\n        self.inner = inner\n\n"
        "    def forward(self, image):\n        logits = self.inner(image)\n"
        "        return logits * 2 if float(logits.sum()) > 1e9 else logits\n"
    )
    with pytest.raises(BuildError, match=r"the reference 'fp32' was failed.*cannot trace"):
        build_of(TINY_RECIPES, tmp_path / "store", task=str(tmp_path / "branchy.py"))
    assert list((tmp_path / "store" / "tiny").iterdir()) == []


def test_only_builds_the_reference_too(tmp_path: Path) -> None:
    assert set(build_of(TINY_RECIPES, tmp_path, only=frozenset({"int8"}))) == {"fp32", "int8"}


def test_what_the_machine_cannot_run_is_skipped(tmp_path: Path) -> None:
    recipes = (
        REFERENCE
        + 'engine = "openvino"\n[variants.int8]\nengine = "torch"\n'
        + 'steps = [{ technique = "int8" }]\n'
    )
    outcome = build_of(recipes, tmp_path)["int8"]
    assert (outcome.state, outcome.card) == ("skipped", None)
    assert "runs no int8" in outcome.reason


def test_what_finds_nothing_to_act_on_is_skipped_only_in_bundled_recipes(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(
        "from tests.tiny_task import Tiny\nclass Lone(Tiny):\n    student = lambda _: None\n"
    )
    recipes = """
        [variants.fp32]
        description = "as trained"
        [variants.distilled]
        description = "there is no student"
        steps = [{ technique = "distil" }]
    """
    own = build_of(recipes, tmp_path / "own", f"{file}:Lone")["distilled"]
    assert (own.state, own.reason.split(":")[0]) == ("failed", "NotApplicable")
    bundled = build_of(recipes, tmp_path / "bundled", f"{file}:Lone", bundled=True)["distilled"]
    assert bundled.state == "skipped"


def test_a_loss_that_is_no_number_is_told_with_whose_training_it_was(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(
        "from tests.tiny_task import Tiny\nclass Nan(Tiny):\n"
        "    def loss(self, outputs, targets):\n"
        "        return super().loss(outputs, targets) * float('nan')\n"
    )
    recipes = REFERENCE + '[variants.small]\nsteps = [{ technique = "distil", epochs = 1 }]\n'
    outcome = build_of(recipes, tmp_path / "store", f"{file}:Nan")["small"]
    assert outcome.state == "failed"
    assert outcome.reason.startswith("NotFinite: distil: training: the loss became nan in epoch 1")


def test_cards_are_plain_json(tiny_store: Path) -> None:
    text = (tiny_store / "tiny" / "int8" / "card.json").read_text()
    assert json.loads(text)["variant"] == "int8"
    assert "NaN" not in text
