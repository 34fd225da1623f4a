"""The README's own-model example, run as it stands there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.compressors.builds import COMMAND
from tests.readme import block


def test_the_example_task_compresses_and_its_commands_run(tmp_path: Path) -> None:
    (tmp_path / "wine.py").write_text(block("python", "class Wine(Task)"))
    commands = [
        line.partition("#")[0].split()
        for line in block("sh", "gearshift compress wine.py").splitlines()
        if line.startswith("gearshift ")
    ]
    programs = Path(sys.executable).parent
    ran = []
    for name, *arguments in commands:
        if arguments[0] == "serve":
            continue  # it does not end by itself; tests/e2e serves
        command = [str(programs / name), *arguments]
        if arguments[0] == "compress":
            command = [*COMMAND, *arguments[1:]]
        finished = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        ran.append(arguments[0])
    assert ran == ["compress", "list", "show"]
    built = {path.name for path in (tmp_path / "models" / "wine").iterdir() if path.is_dir()}
    assert {"fp32", "int8", "pruned", "low-rank", "distilled", "distilled-int8"} <= built
    assert (tmp_path / "models" / "wine" / "frontier.png").stat().st_size > 10_000
