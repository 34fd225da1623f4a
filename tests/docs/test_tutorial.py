"""The tutorial from top to bottom, and that the README's short form of it is the same."""

from __future__ import annotations

from pathlib import Path

from tests.docs.blocks import blocks
from tests.docs.desk import REPOSITORY, Desk, environment
from tests.docs.runner import run
from tests.docs.test_blocks import TUTORIAL


def test_every_step_of_the_tutorial(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "page", {}, environment(tmp_path / "home"), demo=False)
    run(blocks(TUTORIAL), desk)
    wine = tmp_path / "page" / "models" / "wine"
    built = {folder.name for folder in wine.iterdir() if folder.is_dir()}
    assert built >= {"fp32", "int8", "pruned", "distilled"}
    assert (wine / "frontier.png").stat().st_size > 10_000


def test_the_readme_has_the_same_task() -> None:
    """So that its commands, which build, need not be run a second time."""
    task = [block.text for block in blocks(TUTORIAL) if block.file == "wine.py"]
    assert task == [
        block.text for block in blocks(REPOSITORY / "README.md") if "class Wine(Task)" in block.text
    ]
