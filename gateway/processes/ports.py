"""Ports that the server listens on: bound before anything is loaded, named as URLs."""

from __future__ import annotations

import ipaddress
import socket

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class PortUnusable(Exception):
    """An address or a port that cannot be listened on; the message says which and why."""


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket to serve on, so that a port in use is told before anything is loaded.

    It listens, unless it is shared: the system would send it connections before it is served.

    Args:
        port: 0 for a free one.
        shared: other processes of this server serve the same port (SO_REUSEPORT).

    Raises:
        PortUnusable: it cannot be had.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise PortUnusable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        if not shared:
            # Two that bind the same port before either listens would both succeed.
            listener.listen()
    except OSError as error:
        listener.close()
        raise PortUnusable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """A socket that keeps a port for processes that share it, and never listens itself.

    Raises:
        PortUnusable: it cannot be had; sharing with another server of the same user is no mistake
            that the system would tell.
    """
    if port:
        bind(host, port).close()
    return bind(host, port, shared=True)


def url_of(host: str, listener: socket.socket, *, tls: bool = False) -> str:
    """The URL at which this machine reaches `listener`, which was bound to `host`."""
    shown = _EVERYWHERE.get(host, host)
    port = listener.getsockname()[1]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
