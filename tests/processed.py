"""Tokenizers and pictures for tests of processors, made in milliseconds."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from router.card import TensorSpec
from router.processor import TextProcessor

WORDS = ("[PAD]", "[CLS]", "[UNK]", "the", "cat", "sat", "on", "mat")


def tokenizer() -> bytes:
    """A `tokenizer.json` of whole words, with a special token before each text."""
    made = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 1)]
    )
    return made.to_str().encode()


def text_processor(**changes: Any) -> TextProcessor:
    """The record that goes with `tokenizer`."""
    record = {
        "input": "text",
        "tokenizer_digest": hashlib.sha256(tokenizer()).hexdigest(),
        "max_tokens": 6,
        "ids": "ids",
        "mask": "mask",
        **changes,
    }
    return TextProcessor.model_validate(record)


def tokens(name: str, size: int = -1, datatype: str = "INT64") -> TensorSpec:
    """An input that a text processor fills."""
    return TensorSpec.model_validate({"name": name, "datatype": datatype, "shape": (-1, size)})


def picture(pixels: np.ndarray, kind: str = "PNG", **how: Any) -> bytes:
    """(h, w) or (h, w, channels) bytes as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()
