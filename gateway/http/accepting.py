"""Accepting connections quickly, whatever the loop.

uvloop (libuv) accepts one connection of a listening socket in a turn of the loop. A turn of a busy
loop takes milliseconds, so a few hundred clients that connect at once wait for seconds, and beyond
the backlog the kernel drops what they send. Further descriptors of the same socket are each asked
once a turn, too.
"""

from __future__ import annotations

import socket

# Connections accepted in a turn. Descriptors that find nobody left cost a system call each.
_IN_A_TURN = 16


def several(listener: socket.socket) -> list[socket.socket]:
    """`listener` and further descriptors of it, to be served side by side."""
    return [listener, *[listener.dup() for _ in range(_IN_A_TURN - 1)]]
