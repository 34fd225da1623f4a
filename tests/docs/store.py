"""The demo's store as the pages have it: its real figures, run by an engine that only waits.

`digits.json` holds what one `gearshift compress digits` wrote into the cards. So a page's request
is answered by the variant that the demo itself would choose, and no test builds eight variants.
"""

from __future__ import annotations

import json
from pathlib import Path

from router.card import CARD_FILE, TensorSpec
from router.processor import ImageProcessor
from tests.stores import seal, write_variant

FIGURES = Path(__file__).with_name("digits.json")

# By their cards bf16 takes 1.4 times as long as int8, which a busy machine can turn around.
_SLOWER = {"bf16": 3}

IMAGE = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 24, 24))
LOGITS = TensorSpec(name="logits", datatype="FP32", shape=(-1, 10))


def write_digits(models: Path) -> None:
    """Write the model `digits` and, beside its variants, the sample that `compress` leaves."""
    for variant, figures in json.loads(FIGURES.read_text(encoding="utf-8")).items():
        folder = write_variant(
            models,
            "digits",
            variant,
            accuracy=figures["accuracy"]["value"],
            inputs=(IMAGE,),
            outputs=(LOGITS,),
            processor=ImageProcessor(input="picture", pixels="image", mode="L"),
            delay_ms=figures["latency"][0]["p50_ms"] * _SLOWER.get(variant, 1),
        )
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        (folder / CARD_FILE).write_text(json.dumps(card | figures), encoding="utf-8")
        seal(folder)
    data = [0.0] * 24 * 24
    tensor = {"name": "image", "shape": [1, 1, 24, 24], "datatype": "FP32", "data": data}
    sample = models / "digits" / "sample.json"
    sample.write_text(json.dumps({"inputs": [tensor]}), encoding="utf-8")
