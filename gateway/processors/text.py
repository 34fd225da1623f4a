"""Text into token ids, by a `tokenizer.json` (the package `tokenizers`; extra `processors`).

All texts of a request are padded to the longest of them where the network takes any length, and to
the network's own length where it has one. Truncation and padding are the card's, not the file's.

A text is tokenised whole before it is cut, at a thousand times its size in memory: so each has a
limit, and all together have one, since a small body may hold millions of them. They are tokenised a
few at a time, of which nothing is kept but what the network reads, in one array for each group.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.processors import Process, ProcessorError, check_size, check_work
from router.card import TensorSpec
from router.errors import InvalidRequest
from router.processor import TextProcessor

# Tokenised between two looks at whether somebody still waits: some milliseconds' worth.
_GROUP_BYTES = 16 << 10
# What a text costs at least, in bytes of text: a row is some microseconds' work, however short.
_LEAST_COST = 64
# Tokenised for one request: up to some seconds of one core (words of one letter took 1.7 s a MiB),
# whatever the body's size.
MOST_COST = 4 << 20


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
        raws = texts.reshape(-1).tolist()
        check_work(
            record.input,
            len(raws),
            map(len, raws),
            most=MOST_COST,
            least=_LEAST_COST,
            unit="bytes of text",
        )
        groups: list[_Group] = []
        for group in _groups(_decoded(record, raws)):
            go_on()
            encoded = tokenizer.encode_batch(group)
            lengths = np.array([len(one) for one in encoded], np.intp)
            longest = int(lengths.max())
            if longest > width:  # and all others are padded to it
                width = longest
                check_size(record.input, len(raws), width * token_bytes)
            tokens: dict[str, Tensor] = {}
            for attribute, name, kind in wanted:
                flat = chain.from_iterable(getattr(one, attribute) for one in encoded)
                tokens[name] = np.fromiter(flat, kind, int(lengths.sum()))
            groups.append(_Group(lengths, tokens))
        if not width:
            raise InvalidRequest(f"inputs.{record.input}", "texts without any token", "some text")
        return {
            name: _padded(groups, name, np.full((len(raws), width), fill.get(attribute, 0), kind))
            for attribute, name, kind in wanted
        }

    return process


class _Group(NamedTuple):
    """Texts that were tokenised together: the tokens of each, (rows,), and what they are by input,
    (tokens,), one text behind the other. An array for each row would take more than its tokens."""

    lengths: Tensor
    tokens: Mapping[str, Tensor]


def _padded(groups: list[_Group], name: str, filled: Tensor) -> Tensor:
    """`filled`, (rows, tokens) of what pads, with each row's tokens at its start."""
    places, row = np.arange(filled.shape[1]), 0
    for lengths, tokens in groups:
        rows = filled[row : row + len(lengths)]
        rows[places < lengths[:, None]] = tokens[name]
        row += len(lengths)
    return filled


def _groups(texts: list[str]) -> Iterator[list[str]]:
    """The texts in order, a few at a time."""
    group: list[str] = []
    left = _GROUP_BYTES
    for text in texts:
        group.append(text)
        left -= max(len(text), _LEAST_COST)
        if left <= 0:
            yield group
            group, left = [], _GROUP_BYTES
    if group:
        yield group


def _decoded(record: TextProcessor, raws: list[bytes]) -> list[str]:
    decoded: list[str] = []
    for row, text in enumerate(raws):
        field, shown = f"inputs.{record.input}", f"{len(text)} bytes in row {row}"
        if len(text) > record.max_bytes:
            raise InvalidRequest(field, shown, f"at most {record.max_bytes} bytes")
        try:
            decoded.append(text.decode())
        except UnicodeDecodeError as error:
            raise InvalidRequest(field, shown, f"text in UTF-8 ({error})") from error
    return decoded
