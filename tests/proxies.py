"""nginx in front of gateways, by the very file that deploy/ offers."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import PATIENCE_S, until
from tests.needs import program

CONFIG = Path(__file__).parents[1] / "deploy" / "nginx" / "gearshift.conf"

_WHOLE = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 1024; }}
http {{
    log_format tries '$gearshift_request_id $request_method $uri $status $upstream_status';
    access_log {folder}/access.log tries;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {own}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    rest: str
    grpc: str
    folder: Path

    def sent_again(self) -> list[str]:
        """The requests that went to more than one gateway, with what each of those answered."""
        # `, ` between two of one upstream, ` : ` before the next upstream.
        return [line for line in self.asked() if ", " in line or " : " in line]

    def asked(self) -> list[str]:
        """A line for each request: id, method, path, status, and that of each that was asked."""
        return (self.folder / "access.log").read_text().splitlines()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, each once."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in made:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in made]


def written(folder: Path, gateways: Sequence[tuple[int, int]], own: tuple[int, int]) -> Path:
    """A whole configuration: the file of deploy/ with other addresses.

    Args:
        gateways: REST port and gRPC port of each of the two.
        own: the same of nginx.
    """
    text = CONFIG.read_text(encoding="utf-8")
    (rest, grpc), (other_rest, other_grpc) = gateways
    for before, after, count in (
        ("127.0.0.1:8080 ", f"127.0.0.1:{rest} ", 2),
        ("127.0.0.1:8180 ", f"127.0.0.1:{other_rest} ", 2),
        ("127.0.0.1:8081 ", f"127.0.0.1:{grpc} ", 1),
        ("127.0.0.1:8181 ", f"127.0.0.1:{other_grpc} ", 1),
        ("listen 80;", f"listen 127.0.0.1:{own[0]};", 1),
        ("listen 81 http2;", f"listen 127.0.0.1:{own[1]} http2;", 1),
    ):
        assert text.count(before) == count, before
        text = text.replace(before, after)
    path = folder / "nginx.conf"
    # Its workers would run as nobody, who may not look into a test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    path.write_text(_WHOLE.format(folder=folder, own=text, user=user), encoding="utf-8")
    return path


@contextmanager
def nginx(folder: Path, gateways: Sequence[tuple[int, int]]) -> Iterator[Nginx]:
    """nginx in front of two gateways, by the REST port and gRPC port of each."""
    command = [program("nginx", "nginx-light", "../sbin"), "-p", str(folder), "-c"]
    rest, grpc = free_ports(2)
    path = written(folder, gateways, (rest, grpc))
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen([*command, str(path)], stdout=said, stderr=said)
    try:
        until(lambda: _listens(process, rest, folder), "nginx listens")
        yield Nginx(f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}", folder)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(process: subprocess.Popen[bytes], port: int, folder: Path) -> bool:
    assert process.poll() is None, (folder / "said").read_text()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
