"""Run what an image's last stage says, from an installation outside an image, and use it once."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from deploy.docker.dockerfile import Stage

_PATIENCE_S = 300.0
_POLL_S = 0.05
# What a page links to, and what a script imports.
_NAMED = re.compile(r"""["'](?:/console|\.)/([\w-]+\.(?:js|css|svg))["']""")
_VALUES = {"BOOL": False, "BYTES": "text"}

# Binds the folder for what is kept over itself, so that it stays writable when the rest does not;
# then becomes the image's user. What a developer's machine keeps in a private folder, such as the
# interpreter, that user may read here, which in the image everybody may.
_READ_ONLY = """
mount --bind "$GEARSHIFT_STATE" "$GEARSHIFT_STATE"
mount --bind "$TMPDIR" "$TMPDIR"
mount -o remount,bind,ro /
if touch "$0" 2>/dev/null; then echo "the root is not read-only" >&2; exit 1; fi
exec setpriv --reuid "${IMAGE_USER%:*}" --regid "${IMAGE_USER#*:}" --clear-groups --no-new-privs \
    --inh-caps -all,+dac_read_search --ambient-caps -all,+dac_read_search \
    --bounding-set -all,+dac_read_search -- "$@"
"""


def serves(stage: Stage, prefix: Path, store: Path, folder: Path) -> str:
    """Start the stage's command on `store`, ask it once, stop it; returns what was seen, as text.

    Raises:
        RuntimeError: it did not get ready, did not answer, its health check fails, or it did not
            end with 0; with what it wrote.
    """
    user = stage.only("USER")
    scratch = {name: folder / name for name in ("state", "tmp")}
    for one in scratch.values():
        one.mkdir()
        if os.geteuid() == 0:
            os.chown(one, *(int(number) for number in user.split(":")))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        name: value.replace("${PREFIX}", str(prefix)).replace("${PATH}", "/usr/bin:/bin")
        for name, value in stage.pairs("ENV").items()
    }
    environment |= {
        "GEARSHIFT_HOST": "127.0.0.1",
        "GEARSHIFT_PORT": str(port),
        "GEARSHIFT_GRPC_PORT": "0",
        "GEARSHIFT_ADMIN_PORT": "off",
        "GEARSHIFT_MODELS": str(store),
        "GEARSHIFT_STATE": str(scratch["state"]),
        "TMPDIR": str(scratch["tmp"]),
        "IMAGE_USER": user,
    }
    command = [str(prefix / "bin" / word) for word in json.loads(stage.only("ENTRYPOINT"))]
    command += json.loads(stage.only("CMD"))
    confined = _may_confine()
    if confined:
        marker = folder / "marker"
        marker.touch()
        command = ["unshare", "--mount", "sh", "-ec", _READ_ONLY, str(marker), *command]
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, env=environment, cwd="/", stdout=written, stderr=subprocess.STDOUT
        )
    try:
        seconds = _await(process, f"http://127.0.0.1:{port}/readyz")
        answered = _ask(f"http://127.0.0.1:{port}", store)
        files = _look(f"http://127.0.0.1:{port}")
        check = json.loads(stage.only("HEALTHCHECK").partition(" CMD ")[2])
        check[0] = str(prefix / "bin" / check[0])
        subprocess.run(check, env=environment, check=True, capture_output=True)
        process.send_signal(signal.SIGTERM)
        code = process.wait(_PATIENCE_S)
        if code:
            raise RuntimeError(f"it ended with {code}")
        if subprocess.run(check, env=environment, capture_output=True).returncode == 0:
            raise RuntimeError("the health check is content with a server that has gone")
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{error}\n{log.read_text(errors='replace')}") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    where = f"user {user}, read-only root" if confined else "this user: only root can do better"
    return (
        f"ready in {seconds:.1f} s as {where}; {answered}; the console's {files} files are there; "
        "health check and end: well"
    )


def _may_confine() -> bool:
    if os.geteuid() or not (shutil.which("unshare") and shutil.which("setpriv")):
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def _await(process: subprocess.Popen[bytes], url: str) -> float:
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < _PATIENCE_S:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return time.monotonic() - begun_s
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    raise RuntimeError(f"it was not ready within {_PATIENCE_S:g} s")


def _ask(url: str, store: Path) -> str:
    """One request to the first model; says who answered. It is the sample that lies beside the
    model's variants, or else one row of nothing."""
    name = _call(f"{url}/v2/repository/index", {})[0]["name"]
    sample = store / name / "sample.json"
    if sample.is_file():
        body = json.loads(sample.read_text())
    else:
        body = {"inputs": [_nothing(one) for one in _call(f"{url}/v2/models/{name}")["inputs"]]}
    answer = _call(f"{url}/v2/models/{name}/infer", body)
    return f"{name} answered by {answer['model_version']}"


def _nothing(tensor: dict[str, Any]) -> dict[str, Any]:
    """One row of a tensor, as its metadata describes it."""
    shape = [1 if extent < 0 else extent for extent in tensor["shape"]]
    value = _VALUES.get(tensor["datatype"], 0)
    return {**tensor, "shape": shape, "data": [value] * math.prod(shape)}


def _look(url: str) -> int:
    """Every file that the console's page needs, and those need in turn; how many there are.

    Raises:
        RuntimeError: one of them is not there.
    """
    todo, seen = ["/", "/console/charts.js"], set[str]()
    while todo:
        path = todo.pop()
        seen.add(path)
        try:
            with urllib.request.urlopen(url + path, timeout=30) as answer:
                text = answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error}") from error
        named = {f"/console/{name}" for name in _NAMED.findall(text)}
        todo += sorted(named - seen - set(todo))
    return len(seen)


def _call(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
