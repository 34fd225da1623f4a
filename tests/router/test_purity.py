"""The router imports nothing but the standard library and pydantic: proven in a fresh process."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import router

_SCRIPT = """
import importlib, json, sys
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""

_PYDANTIC = {
    "annotated_types",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}


def test_a_fresh_process_loads_nothing_else() -> None:
    names = ["router"] + [
        module.name for module in pkgutil.walk_packages(router.__path__, "router.")
    ]
    assert len(names) > 10
    found = subprocess.run(
        [sys.executable, "-I", "-c", _SCRIPT.format(names=names)],
        check=True,
        capture_output=True,
        text=True,
    )
    bare = subprocess.run(
        [sys.executable, "-I", "-c", _SCRIPT.format(names=[])],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(json.loads(found.stdout)) - set(json.loads(bare.stdout))
    foreign = {
        name
        for name in loaded - _PYDANTIC - {"router"}
        if name not in sys.stdlib_module_names and not name.startswith("_sysconfigdata")
    }
    assert foreign == set()
