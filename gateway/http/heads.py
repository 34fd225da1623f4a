"""Heads that came before: a client says the same in request after request, and it is parsed once.

What follows from a head depends on its bytes alone. So a request that comes whole in one packet,
with a head that was parsed before and a body of the length that it states, is not parsed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.http.asgi import Scope
from gateway.recording import origins

# Heads that are kept, and the longest of them: some two MiB in all, with what follows from them.
_MOST_KEPT = 256
_LONGEST_BYTES = 2048
# Heads with one of these come once. With the latter what follows is no plain body.
_OWN_NAMES = frozenset(
    name.encode() for name in (origins.REQUEST_ID, origins.TRACEPARENT, origins.TRACESTATE)
)
_OTHER_BODIES = frozenset((b"transfer-encoding", b"expect", b"upgrade"))


class Head(NamedTuple):
    """What follows from a request's head.

    Attributes:
        scope: the ASGI scope's members that it states.
        body_bytes: length of its body.
        known: for whoever reads its headers, to keep what they say.
    """

    scope: dict[str, Any]
    body_bytes: int
    known: dict[str, Any]


class Heads:
    """Heads by their bytes, the empty line included; one for all connections of a server."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Head] = {}

    def find(self, head: bytes) -> Head | None:
        """What follows from these bytes, if they came before."""
        return self._kept.get(head)

    def keep(self, head: bytes, body_bytes: int, scope: Scope) -> None:
        """Keep the head of a POST that was answered, if it is the whole of one and may come again.

        Args:
            head: with the empty line.
            body_bytes: what came behind it, in the same packet and no other.
            scope: the request's, as it was parsed.
        """
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        names = [name for name, _ in headers]
        if not (_OWN_NAMES.isdisjoint(names) and _OTHER_BODIES.isdisjoint(names)):
            return
        if len(head) > _LONGEST_BYTES or not are_whole(head, body_bytes, headers):
            return
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        stated = {
            name: scope[name]
            for name in (
                "type", "asgi", "http_version", "root_path", "headers",
                "method", "path", "raw_path", "query_string",
            )
        }  # fmt: skip
        self._kept[head] = Head(stated, body_bytes, {})


def are_whole(head: bytes, body_bytes: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a head, and so many bytes behind it, are one POST from its beginning to its end.

    Args:
        headers: those of the request that came with them, as they were parsed.
    """
    length = [value for name, value in headers if name == b"content-length"]
    return head.startswith(b"POST ") and len(length) == 1 and int(length[0]) == body_bytes
