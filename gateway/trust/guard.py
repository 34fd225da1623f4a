"""In front of every HTTP route: who may call it, by its path. What is not named needs a key.

A page that somebody looks at can make their browser send requests to this machine. Where an
operator's calls are taken, it is refused by what browsers cannot hide: the `Origin` of a page that
is not this server's own, the `Sec-Fetch-Site` of one, and, where a name was made to point at this
machine after the page was loaded (DNS rebinding), a `Host` that is no address of this machine.
And what a proxy passed on is not from this machine, whoever sent it last.
"""

from __future__ import annotations

import ipaddress

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.http.asgi import (
    CALLER,
    CHARGED_USD,
    INFER_ROUTE,
    INFER_ROUTE_OF_VERSION,
    began,
    read_headers,
    respond,
)
from gateway.journal import Journal
from gateway.trust.access import ANYBODY, Access, Scope
from gateway.trust.forwarded import passed_on
from gateway.wire import problems, said
from router.errors import Forbidden, GearshiftError

# What orchestrators ask, who have no key; and what describes the API alone.
_FREE = frozenset(
    ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json")
)
# The page's own files, which hold no data: it asks for a key, and for the data with it.
_CONSOLE = "/console/"
_FILES = (".css", ".js", ".svg", ".png")
_INFER = ("/infer", "/decide")
_MODELS = "/v2/models/"
_REPOSITORY = "/v2/repository/"
_INDEX = "/v2/repository/index"


def scope_of(path: str) -> Scope | None:
    """What a key needs for a path of the public port; None where none is needed.

    Whatever is new and not named here can be read with a key, and changes nothing without one.
    """
    if path in _FREE:
        return None
    if path.startswith(("/admin", _CONSOLE + "admin", _REPOSITORY)):
        return "read" if path == _INDEX else "admin"
    if path.startswith(_CONSOLE) and path.endswith(_FILES):
        return None
    return "infer" if path.endswith(_INFER) else "read"


class Guard:
    """Lets requests in to an app, or answers 401, 403, 429 or 503.

    Args:
        loopback: only this machine reaches the port, so that operators may use it without a key
            until there is one.
        admin: every path is an operator's.
    """

    def __init__(self, access: Access, journal: Journal, loopback: bool, admin: bool) -> None:
        self._access = access
        self._journal = journal
        self._loopback = loopback
        self._admin = admin

    async def __call__(self, app: ASGIApp, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Call `app` for a caller who may."""
        needed: Scope | None = "admin" if self._admin else scope_of(scope["path"])
        caller = ANYBODY
        if needed is not None:
            headers = dict(scope["headers"])
            try:
                forwarded = False
                if needed == "admin":
                    refuse_other_sites(headers, self._loopback)
                    forwarded = passed_on(headers)
                caller = self._access.enter(
                    headers.get(b"authorization"),
                    needed,
                    loopback=self._loopback,
                    forwarded=forwarded,
                )
            except GearshiftError as error:
                scope[CALLER] = self._access.kept_out(error)
                await self._refuse(scope, send, error)
                return
            scope[CALLER] = caller
        try:
            await app(scope, receive, send)
        finally:
            if caller is not ANYBODY:
                self._access.leave(caller, scope.get(CHARGED_USD, 0.0))

    async def _refuse(self, scope: AsgiScope, send: Send, error: GearshiftError) -> None:
        status, headers, body = problems.of(error)
        if scope["path"].endswith(_INFER[0]):
            model, _, rest = scope["path"].removeprefix(_MODELS).partition("/")
            own, _ = read_headers(scope)
            route = INFER_ROUTE_OF_VERSION if rest.startswith("versions/") else INFER_ROUTE
            origin = began(scope, own, route, self._journal)
            self._journal.failed(model, error, 0.0, origin)
            headers += said.of_origin(origin)
        await respond(send, status, headers, body)


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
        shown = origin.decode("latin-1")[:200]
        raise Forbidden(f"Origin: expected this server's own, got {shown!r}")
    site = headers.get(b"sec-fetch-site", b"none")
    if site not in (b"none", b"same-origin"):
        shown = site.decode("latin-1")[:200]
        raise Forbidden(f"Sec-Fetch-Site: expected same-origin, got {shown!r}")


def _names_this_machine(host: str) -> bool:
    """Whether a `Host` is `localhost` or an address; a name could be anybody's."""
    bracketed = host.startswith("[")
    name = host[1:].partition("]")[0] if bracketed else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
