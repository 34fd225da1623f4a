"""Networks of thinner layers are built, verified and measured like any other."""

from __future__ import annotations

from pathlib import Path

from tests.compressors.builds import build_of

_STEPS = {
    "svd": "ratio = 0.5, round_to = 1",
    "tucker": "ratio = 0.5",
    "cp": "cost = 0.4, iterations = 10",
    "tensor-train": "ratio = 0.3",
    "lora": "rank = 4",
}


def test_builds_run_on_openvino(tmp_path: Path) -> None:
    recipes = '[variants.fp32]\nengine = "openvino"\n' + "".join(
        f'[variants.{name}]\nengine = "openvino"\n'
        f'steps = [{{ technique = "{name}", epochs = 1, {settings} }}]\n'
        for name, settings in _STEPS.items()
    )
    states = {one.variant: one.reason or one.state for one in build_of(recipes, tmp_path).values()}
    assert states == dict.fromkeys(("fp32", *_STEPS), "built")
