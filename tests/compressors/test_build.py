"""Builds, with real parts: the tiny task, real engines, a real store."""

from __future__ import annotations

import json
from pathlib import Path

from compressors import artifact


def test_the_tiny_store_is_whole(tiny_store: Path) -> None:
    for variant in sorted((tiny_store / "tiny").iterdir()):
        card = artifact.read(variant)
        assert card.variant == variant.name
        print(json.dumps(card.model_dump(mode="json"), indent=1))
