"""A variant belongs to one definition of its task: its code and its samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressors import usertask
from compressors.errors import BuildError
from compressors.provenance import definition_digest
from tests.compressors.builds import TASK, build_of

SOURCE = Path(TASK).read_text()
# The score is inherited; this one gives every sample a tenth less.
STRICTER = SOURCE + (
    "\n    def score(self, outputs, targets):\n"
    "        return 0.9 * Task.score(self, outputs, targets)\n"
)
RELABELLED = SOURCE.replace(
    "return images, digits", "digits.target[:] = 9 - digits.target\n    return images, digits"
)


def digest(text: str, folder: Path) -> str:
    path = folder / "task.py"
    path.write_text(text)
    return definition_digest(usertask.load(str(path)))


def test_comments_and_docstrings_define_nothing_and_everything_else_does(tmp_path: Path) -> None:
    own = digest(SOURCE, tmp_path)
    assert (
        digest(SOURCE.replace('"""A task small', '"""A task so small') + "# more\n", tmp_path)
        == own
    )
    assert RELABELLED != SOURCE
    assert len({own, digest(STRICTER, tmp_path), digest(RELABELLED, tmp_path)}) == 3


def test_what_was_scored_otherwise_is_not_reused(tmp_path: Path) -> None:
    path = tmp_path / "task.py"
    path.write_text(SOURCE)
    build = {"task": str(path), "engines": ("openvino",)}
    store = tmp_path / "models"
    assert build_of("[variants.fp32]", store, **build)["fp32"].state == "built"
    assert build_of("[variants.fp32]", store, **build)["fp32"].state == "reused"
    path.write_text(STRICTER)
    with pytest.raises(BuildError, match="the task changed: its code or its samples"):
        build_of("[variants.fp32]", store, **build)
