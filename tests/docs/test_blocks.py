"""Every code block of README, CONTRIBUTING and docs/ is run, parsed, or says why it cannot be.

`tests/docs/blocks.py` has the marks that a page may set, `tests/docs/desk.py` what a block may
count on, and `tests/docs/written.py` what may differ between a page's output and the real one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.docs.blocks import blocks
from tests.docs.desk import REPOSITORY, Desk, Serving, environment
from tests.docs.runner import run
from tests.docs.store import write_digits
from tests.needs import program

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
"""It builds, so it has a file of its own beside this one, which another process may run."""

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(page for page in (REPOSITORY / "docs").glob("**/*.md") if page != TUTORIAL),
]

# Each says why. More than these need a reason to be let grow: what nobody runs goes stale.
MOST_NOT_RUN = 20


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home directory of every command."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def shared(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The addresses of the server that pages ask which start none."""
    folder = tmp_path_factory.mktemp("shared")
    write_digits(folder / "models")
    serving = Serving("gearshift serve --models models --lanes 1", folder, environment(home))
    try:
        yield serving.addresses()
    finally:
        serving.stop()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_blocks_of(page: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = blocks(page)
    for name in ("curl", "openssl"):
        if any(re.search(rf"\b{name}\b", block.text) for block in found if not block.not_run):
            program(name, name)
    asks = any(one.language in ("sh", "console", "python") and not one.not_run for one in found)
    shared = request.getfixturevalue("shared") if asks else {}
    run(found, Desk(tmp_path, shared, environment(request.getfixturevalue("home"))))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_code_is_fenced(page: Path) -> None:
    """Code that is only indented would be run by nobody, and looks like prose in a diff."""
    text = page.read_text(encoding="utf-8")
    lines = text.splitlines()
    indented = [
        token.map[0]
        for token in MarkdownIt().parse(text)
        if token.type == "code_block" and token.map is not None
    ]
    # What belongs to an admonition is indented too.
    before = {line: [one for one in lines[:line] if one.strip()] for line in indented}
    assert not [line + 1 for line in indented if not before[line][-1].startswith(("!!!", "???"))]


def test_few_blocks_are_not_run() -> None:
    found = [block for page in (*PAGES, TUTORIAL) for block in blocks(page) if block.not_run]
    told = "\n".join(f"{block}: {block.not_run}" for block in found)
    print(told)
    assert len(found) <= MOST_NOT_RUN, told
