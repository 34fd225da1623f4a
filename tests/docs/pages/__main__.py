"""`python -m tests.docs.pages`: write every page anew."""

from __future__ import annotations

from tests.docs.pages import FOLDER, names, text

for name in names():
    path = FOLDER / f"{name}.md"
    page = text(name)
    if not path.exists() or path.read_text(encoding="utf-8") != page:
        path.write_text(page, encoding="utf-8")
        print(path)
