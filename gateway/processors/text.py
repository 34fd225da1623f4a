"""Text into token ids, by a `tokenizer.json` (the package `tokenizers`; extra `processors`).

All texts of a request are padded to the longest of them where the network takes any length, and to
the network's own length where it has one. Truncation and padding are the card's, not the file's.

A text is tokenised whole before it is cut, at a thousand times its size in memory: so each has a
limit, and they are tokenised a few at a time, of which nothing is kept but what the network reads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.processors import Process, ProcessorError, check_size
from router.card import TensorSpec
from router.errors import InvalidRequest
from router.processor import TextProcessor

# Tokenised between two looks at whether somebody still waits: some milliseconds' worth.
_GROUP_BYTES = 16 << 10
# What a text costs beside its length, in bytes of text.
_LEAST_COST = 64


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
    tokenizer.no_padding()
    fill = {"ids": padding.get("pad_id", 0), "type_ids": padding.get("pad_type_id", 0)}
    parts = [("ids", record.ids), ("attention_mask", record.mask), ("type_ids", record.types)]
    wanted = [
        (attribute, name, NUMPY_TYPES[inputs[name].datatype])
        for attribute, name in parts
        if name is not None
    ]

    token_bytes = sum(kind.itemsize for _, _, kind in wanted)

    def process(texts: Tensor, go_on: Callable[[], None]) -> dict[str, Tensor]:
        width = max(size, 0)
        check_size(record.input, texts.size, max(width, 1) * token_bytes)
        decoded = _decoded(record, texts)
        rows: dict[str, list[Tensor]] = {name: [] for _, name, _ in wanted}
        for group in _groups(decoded):
            go_on()
            for encoded in tokenizer.encode_batch(group):
                for attribute, name, kind in wanted:
                    rows[name].append(np.array(getattr(encoded, attribute), kind))
                if len(encoded) > width:  # and all others are padded to it
                    width = len(encoded)
                    check_size(record.input, texts.size, width * token_bytes)
        if not width:
            raise InvalidRequest(f"inputs.{record.input}", "texts without any token", "some text")
        return {
            name: _padded(rows[name], width, fill.get(attribute, 0))
            for attribute, name, _ in wanted
        }

    return process


def _padded(rows: list[Tensor], width: int, fill: int) -> Tensor:
    padded = np.full((len(rows), width), fill, rows[0].dtype)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values
    return padded


def _groups(texts: list[str]) -> Iterator[list[str]]:
    """The texts in order, a few at a time."""
    group: list[str] = []
    left = _GROUP_BYTES
    for text in texts:
        group.append(text)
        left -= len(text) + _LEAST_COST
        if left <= 0:
            yield group
            group, left = [], _GROUP_BYTES
    if group:
        yield group


def _decoded(record: TextProcessor, texts: Tensor) -> list[str]:
    decoded: list[str] = []
    for row, text in enumerate(texts.reshape(-1).tolist()):
        field, shown = f"inputs.{record.input}", f"{len(text)} bytes in row {row}"
        if len(text) > record.max_bytes:
            raise InvalidRequest(field, shown, f"at most {record.max_bytes} bytes")
        try:
            decoded.append(text.decode())
        except UnicodeDecodeError as error:
            raise InvalidRequest(field, shown, f"text in UTF-8 ({error})") from error
    return decoded
