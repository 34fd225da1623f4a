"""A connection for whatever bytes, and what may come back over it."""

from __future__ import annotations

import json
import socket

from tests.drills.fuzz.cases import Fault


class Client:
    """A connection, made anew when it was closed, that says what came back."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._address = host, int(port)
        self._connection: socket.socket | None = None

    def ask(self, message: bytes, *, whole: bool) -> tuple[int, bytes]:
        """Status and body of the answer; status 0 where the server just closes.

        Args:
            whole: whether it is one whole request for certain. What is not is ended, so that the
                server does not wait for the rest.
        """
        if self._connection is None:
            self._connection = socket.create_connection(self._address)
        connection = self._connection
        connection.settimeout(0.02 if not whole else 10.0)
        come = b""
        try:
            connection.sendall(message)
            while not _complete(come):
                try:
                    got = connection.recv(1 << 16)
                except TimeoutError:
                    if connection.gettimeout() != 0.02:
                        raise Fault(f"nothing came back in 10 s: {message!r}") from None
                    connection.settimeout(10.0)
                    connection.shutdown(socket.SHUT_WR)
                    continue
                if not got:
                    break
                come += got
        except (ConnectionError, BrokenPipeError):
            pass
        if not whole or not _complete(come) or b"connection: close" in come.lower():
            self.close()
        if not come:
            return 0, b""
        head, _, body = come.partition(b"\r\n\r\n")
        return int(head[9:12]), body

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _complete(come: bytes) -> bool:
    head, ended, body = come.partition(b"\r\n\r\n")
    if not ended:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line[15:])
    return head[9:12] == b"100"


def judged(status: int, body: bytes, sent: bytes) -> str:
    """The status as a word.

    Raises:
        Fault: it must not be, or its body is not what every refusal's is.
    """
    if status == 0:
        return "closed"
    if status >= 400:
        try:
            problem = json.loads(body)
            code = problem["code"]
            assert problem["status"] == status and problem["error"] == problem["detail"]
        except (ValueError, KeyError, TypeError, AssertionError):
            raise Fault(f"{status} with {body[:300]!r} for {sent[:2000]!r}") from None
        if status >= 500 and code != "deadline-passed":
            raise Fault(f"{status} {body[:300]!r} for {sent[:2000]!r}")
    return str(status)


def post(path: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: fuzz", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
