"""The README's code blocks, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"

_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """Every code block of `language`, in order."""
    return [text for name, text in _BLOCK.findall(README.read_text()) if name == language]


def block(language: str, holding: str) -> str:
    """The one code block of `language` that holds `holding`.

    Raises:
        ValueError: there is none, or more than one.
    """
    (only,) = [text for text in blocks(language) if holding in text]
    return only
