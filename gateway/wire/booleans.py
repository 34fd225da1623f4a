"""Whether JSON text may hold booleans, which `struct` would take for numbers."""

from __future__ import annotations


def may_stand_in(text: bytes) -> bool:
    """Whether `true` or `false` stands anywhere behind the beginning of the first tensor's data.

    A single letter is found at the speed of memory, and there is none in numbers: so the words
    are looked for in what follows the numbers alone.
    """
    data = text.find(b'"data"') + len(b'"data"')
    if text.find(b"\\", 0, data) >= 0:
        return True  # which may have spelt a key before
    for word in (b"true", b"false"):
        at = text.find(word[:1], data)
        if at >= 0 and text.find(word, at) >= 0:
            return True
    return False
