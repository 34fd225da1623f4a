"""Tells the service manager how far this process is: systemd's `sd_notify`, without its library.

The manager names a datagram socket in `NOTIFY_SOCKET`; where there is none, nothing is sent. Only
the process that it started speaks: workers and lanes are told of by their supervisor.
"""

from __future__ import annotations

import contextlib
import os
import socket

_VARIABLE = "NOTIFY_SOCKET"


def ready(status: str) -> None:
    """The start is over; `status` is one line for whoever asks the manager."""
    _send(f"READY=1\nSTATUS={status}")


def stopping() -> None:
    """It was told to end, and does so; a signal handler may say it."""
    _send("STOPPING=1\nSTATUS=letting running requests finish")


def _send(text: str) -> None:
    address = os.environ.get(_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    # A name that begins with @ is one of no file: the kernel wants a zero byte in its place.
    place = "\0" + address[1:] if address[0] == "@" else address
    # A manager that cannot be told is no reason not to serve.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        out.sendto(text.encode(), place)
