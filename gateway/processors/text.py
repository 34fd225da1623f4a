"""Text into token ids, by a `tokenizer.json` (the package `tokenizers`; extra `processors`).

All texts of a request are padded to the longest of them where the network takes any length, and to
the network's own length where it has one. Truncation and padding are the card's, not the file's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.processors import Process, ProcessorError
from router.card import TensorSpec
from router.errors import InvalidRequest
from router.processor import TextProcessor


def open(record: TextProcessor, folder: Path, inputs: Mapping[str, TensorSpec]) -> Process:
    """See `gateway.processors`.

    Raises:
        ProcessorError: the package is missing, or the file is no tokenizer, or not the card's.
    """
    # Its own threads would take the lanes' cores; several requests run side by side anyhow.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ProcessorError(
            "the package tokenizers is not installed: pip install 'gearshift[processors]'"
        ) from error
    path = folder / record.tokenizer
    try:
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != record.tokenizer_digest:
            raise ProcessorError(f"{record.tokenizer} is not the one that the card names")
        tokenizer: Any = Tokenizer.from_buffer(raw)
    except ProcessorError:
        raise
    except Exception as error:  # the package raises nothing more precise
        raise ProcessorError(f"{record.tokenizer} is no tokenizer: {error}") from error
    size = inputs[record.ids].shape[1]
    most = record.max_tokens if size == -1 else min(record.max_tokens, size)
    tokenizer.enable_truncation(most)
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(
        length=None if size == -1 else size,
        pad_id=padding.get("pad_id", 0),
        pad_token=padding.get("pad_token", "[PAD]"),
        pad_type_id=padding.get("pad_type_id", 0),
    )
    parts = [("ids", record.ids), ("attention_mask", record.mask), ("type_ids", record.types)]
    wanted = [
        (attribute, name, NUMPY_TYPES[inputs[name].datatype])
        for attribute, name in parts
        if name is not None
    ]

    def process(texts: Tensor) -> dict[str, Tensor]:
        encoded = tokenizer.encode_batch(_decoded(record.input, texts))
        if not len(encoded[0]):
            raise InvalidRequest(f"inputs.{record.input}", "texts without any token", "some text")
        return {
            name: np.array([getattr(each, attribute) for each in encoded], kind)
            for attribute, name, kind in wanted
        }

    return process


def _decoded(name: str, texts: Tensor) -> list[str]:
    decoded: list[str] = []
    for row, text in enumerate(texts.reshape(-1).tolist()):
        try:
            decoded.append(text.decode())
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"inputs.{name}", f"{len(text)} bytes in row {row}", f"text in UTF-8 ({error})"
            ) from error
    return decoded
