"""Signatures of variants by the OpenSSF's model-signing, with a key pair and without a network.

A signature lies in the variant's folder as `model.sig`: a Sigstore bundle over the SHA-256 of every
other file there, the manifest included. The packages come with the extra `signing`; its own
command verifies the same files: `model_signing verify key FOLDER --signature FOLDER/model.sig
--ignore-paths FOLDER/model.sig --public_key KEY`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.settings import SettingsError
from router.manifest import SIGNATURE_FILE

Check = Callable[[Path], None]
"""Raises `NotSigned` for a folder that the operator does not trust."""

_MISSING = "signatures need packages that are missing: pip install 'gearshift[signing]'"


class NotSigned(Exception):
    """There is no signature, or it is not by the key, or not of what lies there."""


def anything(folder: Path) -> None:
    """The check of a server that was given no key: every folder passes."""
    del folder


def checker(public_key: Path | None) -> Check:
    """What refuses folders that are not signed by the owner of `public_key`.

    Args:
        public_key: an elliptic-curve key (P-256, P-384 or P-521) in PEM; None lets everything pass.

    Raises:
        SettingsError: the key is not usable, or the packages are missing.
    """
    if public_key is None:
        return anything
    try:
        from model_signing import hashing, verifying
    except ImportError as error:
        raise SettingsError(f"verify_signatures: {_MISSING} ({error})") from error

    def verifier() -> Any:
        # One for each check: it keeps what a signature says may be ignored.
        own = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        return config.set_hashing_config(own)

    try:
        verifier()
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"verify_signatures: expected a public key in PEM, got {public_key}: {_why(error)}"
        ) from error

    def check(folder: Path) -> None:
        signature = folder / SIGNATURE_FILE
        if signature.is_symlink() or not signature.is_file():
            raise NotSigned(f"it is not signed: {SIGNATURE_FILE} is missing")
        try:
            verifier().verify(folder, signature)
            signed = _signed_files(signature)
        except Exception as error:  # whatever is wrong with it: its parsers raise anything
            raise NotSigned(f"its signature is not valid: {_why(error)}") from error
        left = {path.name for path in folder.iterdir()} - signed - {SIGNATURE_FILE}
        if left:
            raise NotSigned(f"its signature leaves out {', '.join(sorted(left))}")

    return check


def sign(folder: Path, private_key: Path) -> None:
    """Sign a variant's folder; replaces a signature that it has.

    Raises:
        SettingsError: the key is not usable, or the packages are missing.
        OSError: the folder cannot be written.
    """
    try:
        from model_signing import hashing, signing
    except ImportError as error:
        raise SettingsError(f"{_MISSING} ({error})") from error
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"--key: expected a private key in PEM, got {private_key}: {_why(error)}"
        ) from error
    signer.set_hashing_config(
        hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)
    )
    # Hidden and beside it: whoever reads the store meanwhile sees the old one or the new one.
    scratch = folder.parent / f".{folder.name}.{SIGNATURE_FILE}"
    try:
        signer.sign(folder, scratch)
        scratch.replace(folder / SIGNATURE_FILE)
    finally:
        scratch.unlink(missing_ok=True)


def _signed_files(signature: Path) -> set[str]:
    """The names of the files that a signature is over, out of its in-toto statement."""
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    return {resource["name"] for resource in statement["predicate"]["resources"]}


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
