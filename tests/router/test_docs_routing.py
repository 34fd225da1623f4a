"""The examples of docs/explanation/routing.md, run as they stand there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "explanation" / "routing.md"

_BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_say_what_the_router_says() -> None:
    text = DOCUMENT.read_text()
    # Lines stay where they are in the file, so that a failure names the right one.
    lines = [""] * text.count("\n")
    for block in _BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    examples = doctest.DocTestParser().get_doctest(
        "\n".join(lines) + "\n", {}, "routing", str(DOCUMENT), 0
    )
    assert len(examples.examples) > 40
    said: list[str] = []
    ran = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert not ran.failed, "".join(said)
