"""A real Prometheus that scrapes servers every second, with the rules of `deploy/prometheus`."""

from __future__ import annotations

import json
import math
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.e2e.harness import PATIENCE_S, until
from tests.needs import program

RULES = Path(__file__).parents[2] / "deploy" / "prometheus"
_EVERY = "1s"

Series = list[dict[str, Any]]


class Prometheus:
    """One that runs in `folder`, as a context manager.

    Args:
        targets: the servers to scrape, as `host:port`.
        key: is shown to each, unless it is empty.
    """

    def __init__(self, folder: Path, targets: Sequence[str], key: str) -> None:
        self._program = program("prometheus", "prometheus")
        self._folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{one.getsockname()[1]}"
        job = {
            "job_name": "gearshift",
            "static_configs": [{"targets": list(targets)}],
            **({"authorization": {"credentials": key}} if key else {}),
        }
        wanted = {
            "global": {"scrape_interval": _EVERY, "evaluation_interval": _EVERY},
            "rule_files": [str(RULES / "rules.yml"), str(RULES / "alerts.yml")],
            "scrape_configs": [job],
        }
        self._config = folder / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(wanted), encoding="utf-8")
        self.client = httpx.Client(base_url=f"http://{self._address}", timeout=PATIENCE_S)

    def __enter__(self) -> Self:
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                self._program,
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._folder / 'series'}",
                f"--web.listen-address={self._address}",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            until(self._ready, "Prometheus is ready")
        except BaseException as error:
            error.add_note((self._folder / "log").read_text(errors="replace"))
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note((self._folder / "log").read_text(errors="replace"))
        self._end()

    def at(self, expression: str, time_s: float) -> Series:
        """What a query gives at one moment; each series with a `value`."""
        return self._asked("query", query=expression, time=time_s)

    def over(self, expression: str, from_s: float, to_s: float) -> Series:
        """What a query gives over a range of time, by the second; each series with `values`."""
        return self._asked("query_range", query=expression, start=from_s, end=to_s, step="1")

    def values(self, label: str, metric: str) -> list[str]:
        """The values of a label of a metric."""
        found: list[str] = self._get(f"label/{label}/values", {"match[]": metric})
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its health."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def _asked(self, how: str, **query: Any) -> Series:
        data = self._get(how, query)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: Series = data["result"]
        return found

    def _get(self, path: str, query: Mapping[str, Any]) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, f"{json.dumps(dict(query))}: {answer.text}"
        return answer.json()["data"]

    def _ready(self) -> bool:
        assert self._process.poll() is None, f"Prometheus ended: {self._process.returncode}"
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _end(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._log.close()


def figures(found: Series) -> list[float]:
    """Every value in an answer that is a number."""
    values = [value for one in found for value in one.get("values", [one.get("value")])]
    return [figure for _, text in values if not math.isnan(figure := float(text))]
