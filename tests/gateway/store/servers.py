"""Real servers of objects: S3 by moto, and files over HTTP and FTP."""

from __future__ import annotations

import functools
import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY, SECRET = "AKIAFORTESTSONLY", "a-secret-for-tests-only"


@contextmanager
def s3(bucket: str = "models") -> Iterator[tuple[Any, dict[str, str]]]:
    """An S3 server with an empty bucket: a boto3 client, and the environment that names it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        yield client, environment
    finally:
        server.stop()


def upload(client: Any, folder: Path, bucket: str = "models", prefix: str = "") -> None:
    """Put every file of a store there, the manifests last, as one that is served should be."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == "manifest.json"):
        client.upload_file(str(path), bucket, prefix + path.relative_to(folder).as_posix())


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """A web server that lists folders and knows no ranges; its URL."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def ftp(
    folder: Path, port: int = 0, *, idle_s: float = 300.0, seen: Counter[str] | None = None
) -> Iterator[str]:
    """An FTP server that lets anybody read; its URL.

    Args:
        idle_s: after how long a connection that idles is ended.
        seen: counts what was "begun" and "ended" of connections.
    """
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer

    anybody = DummyAuthorizer()
    anybody.add_anonymous(str(folder))
    counts = Counter[str]() if seen is None else seen
    own = {
        "authorizer": anybody,
        "timeout": idle_s,
        "on_connect": lambda _: counts.update(["begun"]),
        "on_disconnect": lambda _: counts.update(["ended"]),
    }
    handler = type("Handler", (FTPHandler,), own)
    ioloop = IOLoop()
    server = FTPServer(("127.0.0.1", port), handler, ioloop=ioloop)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            ioloop.loop(timeout=0.01, blocking=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"ftp://127.0.0.1:{server.address[1]}"
    finally:
        ended.set()
        thread.join()
        server.close_all()
