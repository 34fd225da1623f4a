"""The reference says what the code says, and the site is whole and needs nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.desk import REPOSITORY
from tests.docs.pages import FOLDER, names, text


@pytest.mark.parametrize("name", names())
def test_a_page_is_as_the_code_makes_it(name: str) -> None:
    """`python -m tests.docs.pages` writes them anew."""
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == text(name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A link, an anchor or a page that is nowhere fails the build."""
    folder = tmp_path_factory.mktemp("site")
    finished = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = {page.relative_to(REPOSITORY / "docs") for page in REPOSITORY.glob("docs/**/*.md")}
    built = {page.relative_to(site).with_suffix(".md") for page in site.glob("**/*.html")}
    assert pages <= built


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Links may lead away; what a browser loads by itself may not."""
    loaded = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?(https?:)?//""")
    imported = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//""")
    for page in site.glob("**/*.html"):
        found = [one[0] for one in loaded.finditer(page.read_text(encoding="utf-8"))]
        assert not [one for one in found if 'rel="canonical"' not in one], page
    for sheet in site.glob("**/*.css"):
        assert not imported.search(sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_outside_the_site_lead_somewhere(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    assert links
    assert not [link for link in links if not (REPOSITORY / link).exists()]


def test_pages_name_metrics_that_there_are() -> None:
    """By their endings: other names that begin so are parameters of the protocol."""
    metric = re.compile(r"\bgearshift_[a-z_]+?_(?:total|seconds|bytes|info|lanes)\b")
    declared = set(metric.findall((FOLDER / "metrics.md").read_text(encoding="utf-8")))
    assert len(declared) > 20
    pages = [*REPOSITORY.glob("docs/**/*.md"), REPOSITORY / "CHANGELOG.md"]
    named = {
        (page.name, name)
        for page in pages
        for name in metric.findall(page.read_text(encoding="utf-8"))
    }
    assert not {(page, name) for page, name in named if name not in declared}


def test_no_page_is_empty() -> None:
    """A page of the navigation that says nothing helps nobody."""
    pages = REPOSITORY.glob("docs/**/*.md")
    assert not [page for page in pages if len(page.read_text(encoding="utf-8")) < 400]
