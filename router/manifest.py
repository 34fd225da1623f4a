"""The manifest: a SHA-256 for every file of a variant, and what differs from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from router.processor import Digest

MANIFEST_FILE = "manifest.json"
# Beside the manifest, and no more part of it than it is of itself.
SIGNATURE_FILE = "model.sig"

# A plain file name: the manifest can name nothing outside its own folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Manifest(BaseModel):
    """`files` maps each file's name to the SHA-256 of its bytes, in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1]
    files: dict[FileName, Digest]


def differences(manifest: Manifest, found: Mapping[str, str]) -> list[str]:
    """What is wrong with a folder whose files have the digests `found`; empty when nothing is.

    A file that the manifest does not list is as wrong as one that changed: nobody vouches for it.
    """
    problems = []
    for name, expected in sorted(manifest.files.items()):
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name] != expected:
            problems.append(f"{name} has digest {found[name]}, the manifest says {expected}")
    problems.extend(
        f"{name} is not in the manifest" for name in sorted(found) if name not in manifest.files
    )
    return problems
