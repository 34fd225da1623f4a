"""`gearshift demo`: the bundled digits task, from nothing to an answered request."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail, warn
from gateway.cli.options import ConfigOption, LogLevelOption, with_settings
from gateway.cli.serve import bind, load, run
from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import StoreUnusable

_MODEL = "digits"
# The last file that a build writes, when all its variants are there.
_SAMPLE_FILE = "sample.json"
# After Ctrl-C, the time in which the build should have noticed it too.
_GRACE_S = 2.0

_NEXT = """
The page with the variants and the picture: {url}/

Three requests to try next, in another terminal:

  # 40 ms, at least 99 % of the full model's accuracy, as cheap as can be
  curl -si {url}/v2/models/digits/infer --data @{sample} \\
    -H 'Gearshift-Max-Latency-Ms: 40' -H 'Gearshift-Min-Accuracy: 99%' -H 'Gearshift-Optimize: cost'

  # the fastest of all, with the whole decision: who was refused, and why
  curl -si {url}/v2/models/digits/infer --data @{sample} \\
    -H 'Gearshift-Optimize: latency' -H 'Gearshift-Explain: true'

  # more than any variant can promise: the answer says what would fit
  curl -si {url}/v2/models/digits/infer --data @{sample} \\
    -H 'Gearshift-Min-Accuracy: 0.999'

Ctrl-C ends it.
"""


@with_settings("models", "host", "port")
def demo(
    *, config: ConfigOption = None, log_level: LogLevelOption = "warning", **options: Any
) -> None:
    """Build the bundled digits variants, serve them, and print three requests to try.

    What MODELS holds already is kept, so that a second run serves at once.

    Exit code: as of `serve`; or of `compress`, when nothing was built that can be served.
    """
    # One process builds and serves, whatever the environment says of others.
    chosen = load(options, config).model_copy(update={"workers": 1})
    if not isinstance(chosen.models, Path):
        fail(f"models: expected a folder to build into, got {chosen.models}", BAD_VALUE)
    # Before minutes of building: a port in use is better known now.
    listener = bind(chosen)
    sample = chosen.store / _MODEL / _SAMPLE_FILE
    if not _complete(chosen.store, sample):
        code = _compress(chosen.store)
        if code and not _servable(chosen.store):
            raise typer.Exit(code)
        if code:
            warn("not every variant was built; serving those that were")

    def invite(url: str) -> None:
        typer.echo(_NEXT.format(url=url, sample=sample))

    run(chosen, listener, log_level, invite)


def _complete(models: Path, sample: Path) -> bool:
    """Whether a build was finished here and nothing was changed since."""
    if not sample.is_file():
        return False
    try:
        found = catalog.read(models)
    except StoreUnusable:
        return False
    broken = any(problem.startswith(f"{_MODEL}/") for problem in found.problems)
    return _MODEL in found.models and not broken


def _servable(models: Path) -> bool:
    try:
        return _MODEL in catalog.read(models).models
    except StoreUnusable:
        return False


def _compress(models: Path) -> int:
    """Build in a process of its own, so that torch stays out of the one that serves."""
    command = [sys.executable, "-m", "gateway.cli", "compress", _MODEL, "--out", str(models)]
    # One engine: to try them all takes three times as long, and a demo is waited for.
    command += ["--engine", "openvino"]
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        fail(f"the build cannot be started: {error.strerror}", STORE_PROBLEM)

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return child.wait()
    except (KeyboardInterrupt, SystemExit):
        # A terminal's Ctrl-C reaches the child by itself, and a second one would disturb it while
        # it cleans up; what was sent to this process alone has to be passed on.
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            child.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
