"""A store's connections: one that is lost is made anew, and where there are many they are used."""

from __future__ import annotations

import io
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from gateway.store.remote import Object, Remote, StoreAway
from tests.e2e.harness import PATIENCE_S, until
from tests.gateway.store import servers
from tests.stores import write_three


def test_a_connection_that_its_server_ended_is_made_anew(tmp_path: Path) -> None:
    """A server ends those that idle, and a store is looked at once in a while."""
    write_three(tmp_path / "store")
    seen = Counter[str]()
    with servers.ftp(tmp_path, idle_s=0.2, seen=seen) as url:
        remote = Remote(f"{url}/store")

        def ended() -> None:
            until(lambda: seen["ended"] == seen["begun"], "the server ends what idles")

        found = remote.listing().variants
        assert len(found) == 3
        card = found["echo", "fp32"]["card.json"]
        text = (tmp_path / "store" / "echo" / "fp32" / "card.json").read_bytes()
        for _ in range(2):
            ended()
            assert remote.listing().variants == found
            ended()
            assert remote.read(card, len(text)) == text


def test_what_is_missing_costs_no_connection_each_time(tmp_path: Path) -> None:
    write_three(tmp_path / "store")
    seen = Counter[str]()
    with servers.ftp(tmp_path, seen=seen) as url:
        remote = Remote(f"{url}/store")
        for _ in range(2):
            remote.listing()
        assert seen["begun"] == 1
        for number in range(3):
            with pytest.raises(StoreAway, match="none cannot be read"):
                remote.read(Object("/store/echo/fp32/none", None, ""), 1)
            assert seen["begun"] == 2 + number  # one that asks again, and is kept


class Meeting(AsyncFileSystem):  # type: ignore[misc]
    """Files that are given only to two who read at once."""

    protocol = "meeting"
    readers = threading.Barrier(2)

    def _open(self, path: str, mode: str = "rb", **more: Any) -> io.BytesIO:
        del path, mode, more
        self.readers.wait(PATIENCE_S)
        return io.BytesIO(b"what it holds")


def test_a_store_of_many_connections_is_read_side_by_side() -> None:
    """As Azure's is, and others whose packages are asynchronous."""
    fsspec.register_implementation("meeting", Meeting, clobber=True)
    remote = Remote("meeting://bucket/store")
    one = Object("bucket/store/echo/fp32/card.json", None, "")
    with ThreadPoolExecutor(2) as threads:
        read = [threads.submit(remote.read, one, 100) for _ in range(2)]
        assert [each.result() for each in read] == [b"what it holds"] * 2
