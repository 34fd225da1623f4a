"""Nothing that a build uses reports home, or leaves files there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.compressors.builds import TASK

# Runs in every Python process of the build, before anything is imported: an audit hook sees every
# connection and every look-up of a name, whichever package makes it, and cannot be taken off.
SITE = """
import os, sys
def _hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["SEEN"], "a") as file:
            file.write(f"{event} {arguments[-1]!r} {sys.argv}\\n")
sys.addaudithook(_hook)
with open(os.environ["SEEN"] + ".started", "a") as file:
    file.write("started\\n")
"""
PROBE = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
BUILD = """
import sys
from pathlib import Path
from compressors import measure, usertask
from compressors.build import Options, build
from compressors.progress import Silent
from compressors.recipe import parse
measure.SECONDS_PER_BATCH_SIZE, measure.MIN_RUNS = 0.02, {}
book = parse(
    '[variants.fp32]\\n[variants.int8]\\nsteps = [{technique = "int8", calibration_samples = 20}]',
    "recipes",
)
options = Options(Path(sys.argv[2]), engines=("openvino", "onnxruntime"))
outcomes = build(usertask.load(sys.argv[1]), book, options, Silent())
assert [outcome.state for outcome in outcomes] == ["built", "built"], outcomes
"""


def test_a_build_calls_nobody_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    home, site, seen = tmp_path / "home", tmp_path / "site", tmp_path / "seen"
    home.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    environment = {
        **kept,
        "HOME": str(home),
        "SEEN": str(seen),
        "PYTHONPATH": os.pathsep.join([str(site), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }

    def run(*command: str) -> None:
        subprocess.run([sys.executable, "-c", *command], env=environment, check=False, timeout=300)

    # The hook works: what it must see, it sees.
    run(PROBE)
    assert "socket.connect" in seen.read_text()
    seen.unlink()

    done = subprocess.run(
        [sys.executable, "-c", BUILD, TASK, str(tmp_path / "store")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not seen.exists(), seen.read_text()
    assert [str(path) for path in home.rglob("*")] == []
    # It was there in the processes that the build started, too.
    started = (tmp_path / "seen.started").read_text().splitlines()
    assert len(started) >= 4  # the probe, the build, and one for the memory of each variant
