"""Whether a proxy passed a request on: then it is from elsewhere, whoever sent it last.

A proxy is told by what it says of itself. One that says nothing cannot be told from a caller on
this machine; whoever runs such a one makes a key first.
"""

from __future__ import annotations

from collections.abc import Iterable

# RFC 7239, RFC 9110, and what proxies and those in front of them say besides.
_NAMES = frozenset(
    (
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"true-client-ip",
        b"cf-connecting-ip",
    )
)
_BEGINNINGS = (b"x-forwarded-", b"x-envoy-")


def passed_on(names: Iterable[bytes]) -> bool:
    """Whether headers of these names, in lower case, are of a request that came by a proxy."""
    return any(name in _NAMES or name.startswith(_BEGINNINGS) for name in names)
