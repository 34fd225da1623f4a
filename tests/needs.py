"""Programs that some tests need and Python's package index does not have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def program(name: str, package: str, beside: str = "") -> str:
    """The path of `name`; without it the test is skipped by that name, and in CI it fails.

    Args:
        package: Debian's, which holds it.
        beside: a pattern of folders under `/usr/lib` that are looked in as well.
    """
    folders = [str(folder) for folder in Path("/usr/lib").glob(beside)] if beside else []
    path = os.pathsep.join([os.environ.get("PATH", ""), *sorted(folders, reverse=True)])
    found = shutil.which(name, path=path)
    if found is None:
        absent = f"{name} is not installed: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    return found
