"""Load from wrk, a closed loop on every connection, and its report as figures."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  io.write(string.format("FIGURES %d %d %d %d %d %f %f\\n", summary.requests, summary.duration,
    summary.errors.status, summary.errors.connect + summary.errors.read + summary.errors.write,
    summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Figures:
    """One measured interval. Times in ms."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class Post:
    """The request that is repeated."""

    url: str
    body: bytes
    headers: Mapping[str, str]


def run(post: Post, *, connections: int, seconds: float) -> Figures:
    """Repeat `post` on every connection for `seconds`.

    Raises:
        RuntimeError: wrk is not installed, or it failed.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        body.write_bytes(post.body)
        headers = "\n".join(
            f'wrk.headers["{name}"] = "{value}"' for name, value in post.headers.items()
        )
        script = Path(folder, "load.lua")
        script.write_text(_SCRIPT.format(body=body, headers=headers))
        finished = subprocess.run(
            [
                *(wrk, "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "10s"),
                *("-s", script, post.url),
            ],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
        )
    found = re.search(r"FIGURES (.+)", finished.stdout)
    if finished.returncode != 0 or found is None:
        raise RuntimeError(f"wrk failed: {finished.stdout}{finished.stderr}")
    requests, micros, status, broken, timeouts, p50, p99 = map(float, found[1].split())
    return Figures(
        requests_per_second=requests / (micros / 1e6),
        p50_ms=p50 / 1000,
        p99_ms=p99 / 1000,
        errors=int(status + broken + timeouts),
    )
