"""Who reaches the admin API: nobody's web page, and nobody without the key once there is one.

A page that an operator looks at can make their browser send requests to this machine. It is
refused by what browsers cannot hide: the `Origin` of a page that is not this server's own, the
`Sec-Fetch-Site` of one, and, where a name was made to point at this machine after the page was
loaded (DNS rebinding), a `Host` that is no address of this server.
"""

from __future__ import annotations

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import problems
from gateway.access import Access
from gateway.asgi import respond
from router.errors import Forbidden, GearshiftError


class Guard:
    """In front of the admin API's app.

    Args:
        loopback: only this machine reaches the port, so that it may be used without a key until
            there is one.
    """

    def __init__(self, app: ASGIApp, access: Access, loopback: bool) -> None:
        self._app = app
        self._access = access
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer 401 or 403."""
        headers = dict(scope["headers"])
        try:
            refuse_other_sites(headers, self._loopback)
            caller = self._access.enter(headers.get(b"authorization"), "admin")
        except GearshiftError as error:
            await respond(send, *problems.of(error))
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._access.leave(caller)


def refuse_other_sites(headers: dict[bytes, bytes], loopback: bool) -> None:
    """Refuse what a browser sends for a page of another site.

    Raises:
        Forbidden: it is such a request.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if loopback and not _names_this_machine(host):
        raise Forbidden(f"Host: expected an address of this machine, got {host[:200]!r}")
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
        raise Forbidden(
            f"Origin: expected this server's own, got {origin.decode('latin-1')[:200]!r}"
        )
    site = headers.get(b"sec-fetch-site", b"none")
    if site not in (b"none", b"same-origin"):
        raise Forbidden(f"Sec-Fetch-Site: expected same-origin, got {site.decode('latin-1')!r}")


def _names_this_machine(host: str) -> bool:
    """Whether a `Host` is `localhost` or an address; a name could be anybody's."""
    name = host.removeprefix("[").partition("]")[0] if host.startswith("[") else ""
    name = name or host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
