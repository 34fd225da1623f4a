"""Where one page's blocks run: a folder, a server to ask, and what the blocks left for the next.

A page speaks of `127.0.0.1:8080` (REST), `:8081` (gRPC) and `:8082` (administration), and here
those are the addresses of a server that runs: one that all pages share, until the page starts one.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.compressors.builds import COMMAND
from tests.docs.blocks import Block
from tests.docs.store import write_digits
from tests.docs.written import refused
from tests.e2e.harness import until

REPOSITORY = Path(__file__).parents[2]
# For one command, on a machine that runs other tests beside it.
_PATIENCE_S = 300
_SERVE = re.compile(r"^(\w+=\S* +)*gearshift (serve|demo)\b")
_PORTS = {8080: "rest", 8081: "grpc", 8082: "admin"}
# A page's deadline is for a machine that serves; tests share theirs with other tests.
_DEADLINE = re.compile(r"(gearshift-max-latency-ms[\"']?: *[\"']?)(\d{2,})", re.IGNORECASE)
_STRETCH = 100
# Set for `curl` where a page shows that the server refuses.
_MAY_REFUSE = "PAGE_SHOWS_REFUSAL"
_ANY_PORT = "--port 0 --grpc-port 0 --admin-port 0"


class Failed(AssertionError):
    """A block did not do what its page says."""


class Serving:
    """A server that a page's command line started, until `stop`."""

    def __init__(self, command: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec env {command} {_ANY_PORT}"],
            cwd=folder,
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until(self._settled, f"{command!r} is ready", _PATIENCE_S)
        except BaseException as error:
            error.add_note(self.log())
            self.stop()
            raise

    def log(self) -> str:
        """What it has written so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def addresses(self) -> dict[str, str]:
        """Host and port of each of its doors that is open."""
        said = {"rest": "listening", "grpc": "grpc", "admin": "admin"}
        found = {
            door: re.search(rf"^{word} on (?:https?://)?(\S+?)/?$", self.log(), re.MULTILINE)
            for door, word in said.items()
        }
        return {door: match[1] for door, match in found.items() if match}

    def stop(self) -> None:
        """End it, by force where it does not end by itself."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()

    def _settled(self) -> bool:
        assert self._process.poll() is None, "the server ended"
        return re.search(r"^(not )?ready: ", self.log(), re.MULTILINE) is not None


def environment(home: Path) -> dict[str, str]:
    """What commands of pages see: ours in the path, nobody's settings.

    `gearshift compress` measures more briefly than the real one, `simulate` and `plan` replay fewer
    requests, `make` looks only whether our Makefile can do it, and `curl` ends with 22 after an
    answer of 400 or more, unless the page shows such an answer.
    """
    own = home / "bin"
    own.mkdir(parents=True, exist_ok=True)
    programs = Path(sys.executable).parent
    gearshift = f"""#!/bin/sh
case "$1" in
    compress) shift; exec {shlex.join(COMMAND)} "$@" ;;
    simulate) exec {programs}/gearshift "$@" --requests 100 --seeds 1 ;;
    plan) exec {programs}/gearshift "$@" --requests 1000 ;;
    *) exec {programs}/gearshift "$@" ;;
esac
"""
    make = f'#!/bin/sh\nexec {shutil.which("make")} --dry-run -C {REPOSITORY} "$@" >/dev/null\n'
    curl = f"""#!/bin/sh
for word in "$@"; do
    case "$word" in --fail* | -f | -[a-zA-Z]f) {_MAY_REFUSE}=yes ;; esac
done
[ -n "${_MAY_REFUSE}" ] || set -- --fail-with-body "$@"
exec {shutil.which("curl")} "$@"
"""
    for name, script in (("gearshift", gearshift), ("make", make), ("curl", curl)):
        (own / name).write_text(script)
        (own / name).chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GEARSHIFT_")}
    path = os.pathsep.join([str(own), str(programs), kept.get("PATH", "")])
    return kept | {"PATH": path, "HOME": str(home), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


class Desk:
    """Runs the blocks of one page, in order, and ends what they started.

    Args:
        shared: the addresses of the server that pages ask that start none.
        demo: whether the demo's store is there already.
    """

    def __init__(
        self,
        folder: Path,
        shared: Mapping[str, str],
        environment: Mapping[str, str],
        *,
        demo: bool = True,
    ) -> None:
        self._folder = folder
        self._addresses = dict(shared)
        self._environment = environment
        self._serving: Serving | None = None
        self._names: dict[str, Any] = {"__name__": "__page__"}
        self._examples: dict[str, Any] = {}
        folder.mkdir(exist_ok=True)
        if demo:
            write_digits(folder / "models")
        (folder / "deploy").symlink_to(REPOSITORY / "deploy")

    def close(self) -> None:
        """End the server that the page started, if it did."""
        if self._serving is not None:
            self._serving.stop()
            self._serving = None

    def keep(self, block: Block) -> None:
        """Write a block into the file that it is."""
        assert block.file is not None
        (self._folder / block.file).write_text(self._ours(block.text), encoding="utf-8")

    def python(self, block: Block) -> str:
        """Execute a block; returns what it printed."""
        code = compile("\n" * (block.line - 1) + self._ours(block.text), str(block.page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(self._folder):
            exec(code, self._names)
        return printed.getvalue()

    def pycon(self, block: Block) -> str:
        """Run a block of examples, which compares for itself."""
        parser = doctest.DocTestParser()
        examples = parser.get_doctest(
            block.text, self._examples, str(block.page), str(block.page), block.line - 1
        )
        said: list[str] = []
        result = doctest.DocTestRunner(verbose=False).run(
            examples, out=said.append, clear_globs=False
        )
        self._examples = examples.globs
        if result.failed:
            raise Failed("".join(said))
        return ""

    def sh(self, block: Block, shown: str = "") -> str:
        """Run a block as a script; returns what it wrote, to both streams.

        Args:
            shown: what the page says that it writes.
        """
        wrote, script = "", ""
        for command in commands(block.text):
            if _SERVE.match(command):
                wrote += self._bash(script, block.fails, shown) + self._serve(command)
                script = ""
            elif command != ". .venv/bin/activate":
                script += command + "\n"
        return wrote + self._bash(script, block.fails, shown)

    def console(self, block: Block) -> Iterator[tuple[str, str, str]]:
        """Run a block's commands one by one: each with what the page shows and what it wrote."""
        for command, shown in prompted(block.text):
            if _SERVE.match(command):
                yield command, shown, self._serve(command)
            else:
                yield command, shown, self._bash(command, block.fails, shown)

    def _bash(self, script: str, status: int, shown: str) -> str:
        if not script.strip():
            return ""
        finished = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._ours(script)],
            cwd=self._folder,
            env={**self._environment, _MAY_REFUSE: "yes" if refused(shown) else ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE_S,
        )
        wrote = finished.stdout.decode(errors="replace")
        if finished.returncode != status:
            raise Failed(f"exit status {finished.returncode}, not {status}:\n{script}\n{wrote}")
        return wrote

    def _serve(self, command: str) -> str:
        self.close()
        self._serving = Serving(
            command.partition(" #")[0].rstrip(), self._folder, self._environment
        )
        self._addresses = self._serving.addresses()
        return self._serving.log()

    def _ours(self, text: str) -> str:
        text = _DEADLINE.sub(lambda found: f"{found[1]}{int(found[2]) * _STRETCH}", text)
        for port, door in _PORTS.items():
            if door in self._addresses:
                text = re.sub(rf"\b(127\.0\.0\.1|localhost):{port}\b", self._addresses[door], text)
        return text


def commands(script: str) -> list[str]:
    """A script's lines, those together that a backslash or a here-document joins."""
    found: list[str] = []
    until_line = ""
    for line in script.splitlines():
        goes_on = bool(found) and (found[-1].endswith("\\") or until_line)
        if goes_on:
            found[-1] += "\n" + line
        else:
            found.append(line)
        if until_line:
            until_line = "" if line == until_line else until_line
        elif here := re.search(r"<<-?\s*['\"]?(\w+)", line):
            until_line = here[1]
    return [command for command in found if command.strip()]


def prompted(text: str) -> list[tuple[str, str]]:
    """Of a console's text, each command with the output that follows it."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        command, shown = found[-1] if found else ("", "")
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif not found:
            raise Failed(f"a console block starts with a command, `$ …`: {line!r}")
        elif not shown and (command.endswith("\\") or line.startswith("> ")):
            found[-1] = (f"{command}\n{line.removeprefix('> ')}", "")
        else:
            found[-1] = (command, f"{shown}{line}\n")
    return found
