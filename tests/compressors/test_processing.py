"""Processors of tasks: what they make of text and pictures is what the task's samples are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressors import artifact, usertask
from compressors.errors import BuildError, TaskError
from compressors.processing import text
from compressors.tasks import digits
from compressors.tasks import text as text_task
from gateway import engines, processors
from gateway.wire import byte_elements
from router.card import TensorSpec
from tests.compressors.builds import build_of

TASK = """
from compressors.processing import Processing
from router.processor import ImageProcessor
from tests.tiny_task import Tiny


class Seen(Tiny):
    def processor(self):
        return {returned}
"""
IMAGE = 'Processing(ImageProcessor(input="photo", pixels="{}", mode="L"))'


def task(folder: Path, returned: str) -> str:
    file = folder / "seen.py"
    file.write_text(TASK.format(returned=returned), encoding="utf-8")
    return f"{file}:Seen"


def png(image: np.ndarray) -> bytes:
    """(h, w) from 0 to 1 as a file."""
    file = io.BytesIO()
    Image.fromarray(np.rint(image * 255).clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_build_writes_the_processor_and_the_gateway_runs_it(tmp_path: Path) -> None:
    spec = task(tmp_path, IMAGE.format("image"))
    store = tmp_path / "store"
    build_of("[variants.fp32]\n", store, spec)
    folder = store / "tiny" / "fp32"
    card = artifact.read(folder)
    assert card.processor is not None
    samples = usertask.load(spec).samples("test").batch(slice(0, 20))
    ports = {each.name: each for each in card.inputs}
    process = processors.open_one(card.processor, folder, ports)
    photos = byte_elements.as_tensor([png(each[0]) for each in samples.inputs["image"]], (20,))
    made = process(photos, lambda: None)
    np.testing.assert_allclose(made["image"], samples.inputs["image"], atol=0.5 / 255 + 1e-6)
    program = engines.get(card.engine.name).load(folder, card, threads=1, trusted=False)
    found = program.infer(made)["logits"].argmax(1)
    program.close()
    assert (found == samples.targets).mean() > 0.8
    # It is the same build as long as the processor is the same.
    assert build_of("[variants.fp32]\n", store, spec)["fp32"].state == "reused"
    other = task(tmp_path, IMAGE.format("image").replace("photo", "scan"))
    with pytest.raises(BuildError, match="its processor is another one"):
        build_of("[variants.fp32]\n", store, other)


def test_a_processor_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"processor\(\): expected a Processing or None, got 7"):
        build_of("[variants.fp32]\n", tmp_path / "store", task(tmp_path, "7"))
    with pytest.raises(TaskError, match=r"seen\.py.*'picture'"):
        build_of("[variants.fp32]\n", tmp_path / "store", task(tmp_path, IMAGE.format("picture")))
    with pytest.raises(TaskError, match="No such file"):
        text(tmp_path / "tokenizer.json", max_tokens=4, ids="ids")


def test_the_digits_take_pictures() -> None:
    processing = usertask.load("digits").processor()
    assert processing is not None
    spec = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 24, 24))
    process = processors.open_one(processing.record, Path(), {"image": spec})
    canvas = digits.TASK.samples("validation").inputs["image"][0, 0]
    made = process(byte_elements.as_tensor([png(canvas)], (1,)), lambda: None)
    np.testing.assert_allclose(made["image"][0, 0], canvas.clip(0, 1), atol=0.5 / 255 + 1e-6)


def test_the_text_task_takes_text(tmp_path: Path) -> None:
    processing = text_task.TASK.processor()
    for name, source in processing.files.items():
        (tmp_path / name).write_bytes(source.read_bytes())
    specs = {
        name: TensorSpec(name=name, datatype="INT64", shape=(-1, -1)) for name in ("ids", "mask")
    }
    process = processors.open_one(processing.record, tmp_path, specs)
    passages = [passage for passage, _, _ in text_task.passages()][:50]
    ids, mask = text_task._tokens(passages)
    made = process(
        byte_elements.as_tensor([each.encode() for each in passages], (50,)), lambda: None
    )
    longest = int(mask.sum(1).max())
    np.testing.assert_array_equal(made["ids"], ids[:, :longest])
    np.testing.assert_array_equal(made["mask"], mask[:, :longest])
