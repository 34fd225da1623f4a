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
) -> Processing:
    """Text through a `tokenizer.json`; the names are those of the network's inputs.

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
        ids=ids,
        mask=mask,
        types=types,
    )
    return Processing(record, {record.tokenizer: tokenizer})
