"""The file that the ledger is in: whose it is, and whether this process's user may use it."""

from __future__ import annotations

import os
from pathlib import Path


def begin(file: Path) -> None:
    """Make the file where it is missing; readable by its owner alone, from its first byte on.

    What root makes belongs to whoever the folder does: a server that runs as that user could not
    read it otherwise.

    Raises:
        OSError: it cannot be made, or is there and may not be used.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        made = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        os.close(os.open(file, os.O_RDWR))
        return
    try:
        if os.geteuid() == 0:
            owner = file.parent.stat()
            os.fchown(made, owner.st_uid, owner.st_gid)
    finally:
        os.close(made)


def check(file: Path) -> None:
    """Whether this process's user may use a file that is there.

    Raises:
        PermissionError: another user's, such as root's, keeps it from this one.
    """
    for place, needed in ((file, os.R_OK | os.W_OK), (file.parent, os.W_OK | os.X_OK)):
        if not os.access(place, needed, effective_ids=True):
            raise PermissionError(
                f"{file}: expected keys that user {os.geteuid()} may read and write, got {place} "
                f"of user {place.stat().st_uid}: give it to the server's user, or make keys as it"
            )
