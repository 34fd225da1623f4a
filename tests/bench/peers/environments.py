"""The environments of the peers: one each, made once, kept under one folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.peers.contract import PYTHON, Peer

_STAMP = "installed.json"


def binaries(peer: Peer, folder: Path) -> Path:
    """The `bin` folder that the peer is started from; installs it first where it is not.

    Raises:
        RuntimeError: it cannot be installed; the message holds the end of pip's.
    """
    if not peer.requirements:
        return Path(sys.executable).parent
    home = (folder / peer.name.lower().replace(" ", "")).resolve()
    stamp, wanted = home / _STAMP, json.dumps([PYTHON, *peer.requirements])
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing {', '.join(peer.requirements)} into {home}", flush=True)
        if not (home / "bin" / "python").exists():
            folder.mkdir(parents=True, exist_ok=True)
            _told([_python(), "-m", "venv", str(home)])
        _told([str(home / "bin" / "python"), "-m", "pip", "install", *peer.requirements])
        stamp.write_text(wanted)
    return home / "bin"


def environment(peer: Peer) -> dict[str, str]:
    """The variables that a peer runs with: ours, one thread a pool, nobody reported home."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GEARSHIFT_", "PYTHON", "VIRTUAL_ENV", "MLSERVER_", "RAY_"))
    }
    return {
        **inherited,
        "PYTHONPATH": str(Path.cwd()),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        **peer.environment,
    }


def _python() -> str:
    found = PYTHON if Path(PYTHON).exists() else shutil.which("python3.11")
    if found is None:
        raise RuntimeError(f"{PYTHON} is missing: apt-get install python3.11 python3.11-venv")
    return found


def _told(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        said = (ended.stdout + ended.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}: {said}")
