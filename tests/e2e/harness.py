"""The server as a process: started on a free port, awaited, asked, and stopped by SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 60.0
_POLL_S = 0.01

_Value = TypeVar("_Value")


def until(condition: Callable[[], _Value], what: str, patience_s: float = PATIENCE_S) -> _Value:
    """Wait until `condition` returns something true, and return that."""
    give_up_s = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < give_up_s, f"waited {patience_s:g} s in vain: {what}"
        time.sleep(_POLL_S)
    return value


def infer_body(rows: int = 1, **members: Any) -> dict[str, Any]:
    """An infer request for a model of `tests.stores` with its default input."""
    data = [[0.0, 1.0, 2.0, 3.0]] * rows
    tensor = {"name": "image", "datatype": "FP32", "shape": [rows, 4], "data": data}
    return {"inputs": [tensor], **members}


class Server:
    """A server of `models`, as a context manager; ready, and gone without a trace afterwards.

    Args:
        wait: a path to wait for, until it answers 200.
        trust: whose certificates its client trusts, and which it shows.
        settings: as in `gateway.settings`, given by the environment.
    """

    def __init__(
        self,
        models: Path,
        *,
        wait: str = "/v2/health/ready",
        lanes: int = 1,
        trust: ssl.SSLContext | bool = True,
        **settings: Any,
    ) -> None:
        self._wait = wait
        own = {"models": models, "port": 0, "grpc_port": "off", "lanes": lanes, **settings}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GEARSHIFT_")}
        self._environment = inherited | {f"GEARSHIFT_{k.upper()}": str(v) for k, v in own.items()}

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.client = httpx.Client(timeout=PATIENCE_S, limits=limits, verify=trust)

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve"],
            env=self._environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self.address = until(self._listens, "it listens")
            self.client.base_url = f"{self.scheme}://{self.address}"
            until(self._answers, f"{self._wait} answers 200")
        except BaseException as error:
            error.add_note(self.log())
            self._abandon()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(self.log())
            self._abandon()
            return
        try:
            self.terminate()
            assert self.process.wait(PATIENCE_S) == 0, self.log()
        finally:
            self._abandon()

    def terminate(self) -> None:
        """Ask it to stop; returns at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def listens(self) -> bool:
        """Whether its port takes a connection."""
        host, port = self.address.split(":")
        try:
            socket.create_connection((host, int(port))).close()
        except OSError:
            return False
        return True

    def log(self) -> str:
        """What it has written so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    @property
    def grpc_address(self) -> str:
        """Where it serves gRPC: only with the setting `grpc_port`, 0 for a free one."""
        found = re.search(r"^grpc on (\S+)$", self.log(), re.MULTILINE)
        assert found, self.log()
        return found[1]

    @property
    def admin_url(self) -> str:
        """Where it may be administrated."""
        found = re.search(r"^admin on (\S+)$", self.log(), re.MULTILINE)
        assert found, self.log()
        return found[1]

    def infer(
        self,
        model: str = "echo",
        *,
        rows: int = 1,
        headers: Mapping[str, str] | None = None,
        version: str | None = None,
        **members: Any,
    ) -> httpx.Response:
        """One request by JSON; `members` are further members of its body."""
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        return self.client.post(path, json=infer_body(rows, **members), headers=headers)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 where there is none."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def batches(self, **labels: str) -> float:
        """Batches that ran."""
        return self.metric("gearshift_batch_rows_count", **labels)

    def rows(self, **labels: str) -> float:
        """Rows of the batches that ran."""
        return self.metric("gearshift_batch_rows_sum", **labels)

    def await_busy(self, queued: int = 0) -> None:
        """Wait until a lane runs a batch, and that many requests wait behind it."""
        until(
            lambda: (
                self.metric("gearshift_busy_lanes") > 0
                and self.metric("gearshift_queued_requests") == queued
            ),
            f"a lane is busy and {queued} are queued",
        )

    def await_idle(self) -> None:
        """Wait until no lane runs anything and nothing is queued."""
        until(
            lambda: (
                self.metric("gearshift_busy_lanes") == 0
                and self.metric("gearshift_queued_requests") == 0
            ),
            "no lane is busy and nothing is queued",
        )

    def _listens(self) -> str:
        assert self.process.poll() is None, f"the server ended: {self.process.returncode}"
        found = re.search(r"^listening on (https?)://(\S+)$", self.log(), re.MULTILINE)
        if found is None:
            return ""
        self.scheme = found[1]
        return found[2]

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the server ended: {self.process.returncode}"
        try:
            return self.client.get(self._wait).status_code == 200
        except httpx.TransportError:
            return False

    def _abandon(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.client.close()
        self._log.close()
