"""Carry out the build stage of an image without an engine, and serve from what it made.

    python -m deploy.docker.slim --models models

The instructions are read from serve.Dockerfile itself, so there is no second list of steps. TOOLS
and PREFIX, absolute in the image, are folders of a temporary one here. The server then runs as the
image's user, on a read-only root where the system lets this program make one, with the image's
environment and its health check; it must answer a request and end cleanly.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.docker import dockerfile
from deploy.docker.dockerfile import Stage
from deploy.docker.trial import serves

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "deploy" / "docker" / "serve.Dockerfile"
LIMIT_MB = 450
# What must not come with it: by the names that they would be imported by, or run by.
FORBIDDEN = ("torch", "compressors", "nncf", "pip", "setuptools", "huggingface_hub")
_MB = 1e6
_SHOWN = 12


def build(stage: Stage, folder: Path) -> Path:
    """Carry out a stage's COPY and RUN instructions under `folder`; returns its PREFIX.

    Raises:
        subprocess.CalledProcessError: a step failed.
        ValueError: the stage holds an instruction that this cannot carry out.
    """
    variables = stage.pairs("ARG")
    for name in ("TOOLS", "PREFIX"):
        variables[name] = str(folder / Path(variables[name]).name)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GEARSHIFT_", "PYTHON", "VIRTUAL_ENV"))
    }
    environment = {**kept, **variables, "PATH": f"{_python(folder)}:/usr/bin:/bin"}
    here = folder
    for step in stage.instructions:
        match step.keyword:
            case "ARG":
                continue
            case "WORKDIR":
                here = folder / step.value.lstrip("/")
                here.mkdir(parents=True)
            case "COPY":
                *sources, target = step.value.split()
                for source in sources:
                    _copy(ROOT / source, here / target, into=target.endswith("/"))
            case "RUN":
                subprocess.run(["sh", "-ec", step.value], cwd=here, env=environment, check=True)
            case other:
                raise ValueError(f"line {step.line}: {other} cannot be carried out here")
    return Path(variables["PREFIX"])


def size_mb(folder: Path) -> float:
    """What the files of a folder take on disk, in MB; one that has two names counts once."""
    seen = {
        (status.st_dev, status.st_ino): status.st_blocks * 512
        for path in (folder, *folder.rglob("*"))
        if not path.is_symlink() and (status := path.stat())
    }
    return sum(seen.values()) / _MB


def unwanted(prefix: Path) -> list[str]:
    """What of `FORBIDDEN` can be imported there."""
    code = "import sys, importlib.util as u; print(*(n for n in sys.argv[1:] if u.find_spec(n)))"
    python = str(prefix / "bin" / "python")
    ran = subprocess.run(
        [python, "-I", "-c", code, *FORBIDDEN], capture_output=True, text=True, check=True
    )
    return ran.stdout.split()


def main() -> None:
    """Build, report the size, serve; exit code 1 when anything is not as promised."""
    parser = argparse.ArgumentParser(description="serve.Dockerfile's steps, without an engine")
    parser.add_argument("--models", type=Path, help="a store to serve; without one it only builds")
    models: Path | None = parser.parse_args().models
    build_stage, serve_stage = dockerfile.read(SERVE)
    with _folder() as folder:
        prefix = build(build_stage, folder)
        total = size_mb(prefix)
        packages = next(prefix.glob("lib/python3*/site-packages"))
        sizes = sorted(((size_mb(one), one.name) for one in packages.iterdir()), reverse=True)
        for megabytes, name in sizes[:_SHOWN]:
            print(f"{megabytes:7.1f} MB  {name}")
        print(f"{total:7.1f} MB  installed, of {LIMIT_MB} at most")
        if total > LIMIT_MB:
            sys.exit("it is larger than it may be")
        if found := unwanted(prefix):
            sys.exit(f"it holds what it must not: {', '.join(found)}")
        if models is not None:
            store = folder / "models"
            shutil.copytree(models, store, ignore=shutil.ignore_patterns(".gearshift"))
            print(serves(serve_stage, prefix, store, folder))


def _python(folder: Path) -> Path:
    """A folder in which `python` is this one's interpreter, as it is in the image."""
    place = folder / "interpreter"
    place.mkdir()
    own = place / "python"
    interpreter = getattr(sys, "_base_executable", sys.executable)
    own.write_text(f'#!/bin/sh\nexec "{interpreter}" "$@"\n', encoding="utf-8")
    own.chmod(0o755)
    return place


def _copy(source: Path, target: Path, *, into: bool) -> None:
    if "*" in source.name:
        raise ValueError(f"{source}: name what is copied")
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        place = target / source.name if into or target.is_dir() else target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that the image's user may look into."""
    with tempfile.TemporaryDirectory(prefix="gearshift-slim-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


if __name__ == "__main__":
    main()
