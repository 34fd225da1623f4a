"""What a task's author declares so that clients may send text or pictures.

    def processor(self) -> Processing | None:
        return text(FOLDER / "tokenizer.json", max_tokens=128, ids="ids", mask="mask")

    def processor(self) -> Processing | None:
        return Processing(ImageProcessor(input="photo", pixels="image", mode="RGB"))

It must make of them what the task's samples are: nothing is measured through it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compressors.errors import TaskError
from router.processor import Processor, TextProcessor

# A token is a few bytes of most texts; a text this long is cut to a small part of itself.
_BYTES_A_TOKEN = 64
_LEAST_BYTES = 64 << 10


@dataclass(frozen=True)
class Processing:
    """A processor, and the files that it needs, by their names in the artifact."""

    record: Processor
    files: Mapping[str, Path] = field(default_factory=dict)


def text(
    tokenizer: Path,
    *,
    max_tokens: int,
    ids: str,
    mask: str | None = None,
    types: str | None = None,
    input: str = "text",
    max_bytes: int | None = None,
) -> Processing:
    """Text through a `tokenizer.json`; the names are those of the network's inputs.

    Args:
        max_bytes: the longest text that is not refused; by default 64 for each of `max_tokens`, and
            64 KiB at least.

    Raises:
        TaskError: there is no such file.
    """
    try:
        digest = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    except OSError as error:
        raise TaskError(f"{tokenizer}: {error.strerror}") from error
    record = TextProcessor(
        input=input,
        tokenizer_digest=digest,
        max_tokens=max_tokens,
        max_bytes=max_bytes or max(_LEAST_BYTES, _BYTES_A_TOKEN * max_tokens),
        ids=ids,
        mask=mask,
        types=types,
    )
    return Processing(record, {record.tokenizer: tokenizer})
