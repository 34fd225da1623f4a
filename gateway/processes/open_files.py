"""How many files and connections this process may have open: as many as the system lets it."""

from __future__ import annotations

import resource

# What is open besides connections: libraries, stores, lanes, and the listeners themselves.
_RESERVED = 512
_LEAST = 64


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; how many there may be now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard


def connections(files: int, *, beside_grpc: bool) -> int:
    """How many connections of HTTP so many files leave room for.

    Args:
        beside_grpc: whether there are those of gRPC as well.
    """
    return _free(files) - (grpc_connections(files) if beside_grpc else 0)


def grpc_connections(files: int) -> int:
    """How many of gRPC: a quarter, since one of them carries many requests at once."""
    return _free(files) // 4


def _free(files: int) -> int:
    return max(_LEAST, files - _RESERVED) if files > 0 else 1 << 20
