"""Two gateways that much happens to within seconds, for whoever looks at what is measured.

One has two workers, keys of two tenants, a canary, a shadow, overload, a swap, a fault and a build
that does not load; the other a memory limit, a floor for all, a response cache and no keys.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx

from gateway.processes.cores import usable_cores
from tests.e2e.harness import PATIENCE_S, Server, infer_body, until
from tests.stores import write_variant

MB = 1_000_000
_WORKERS = min(2, usable_cores())

# What Grafana puts in the place of its own variables, for this short while.
_PUT = {
    "$__rate_interval": "4s",
    "$__range": "60s",
    "$model": ".*",
    "$tenant": ".*",
}


def put(expression: str) -> str:
    """The query as Grafana would send it, all models and tenants chosen."""
    for name, value in _PUT.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def first_gateway(models: Path, fault: Path) -> Server:
    """One with workers, which wants a key as soon as there is one; `fault` is what it may have."""
    for variant, accuracy, ms in (("fp32", 0.95, 30), ("int8", 0.93, 8), ("small", 0.90, 2)):
        write_variant(models, "echo", variant, accuracy=accuracy, mirror=True, **times(ms))
    write_variant(models, "fragile", "fp32", fault_file=str(fault))
    write_variant(models, "fragile", "int8", accuracy=0.94, latency_ms_at_1=0.5)
    return Server(
        models,
        workers=_WORKERS,
        max_batch=4,
        max_queue=12,
        watch_seconds=0.2,
        breaker_seconds=2.5,
    )


def second_gateway(models: Path) -> Server:
    """One without keys, that has room for two of three variants."""
    for variant, accuracy, ms in (("fp32", 0.95, 8), ("int8", 0.93, 4), ("small", 0.90, 1)):
        write_variant(
            models, "images", variant, accuracy=accuracy, resident_bytes=2 * MB, **times(ms)
        )
    return Server(
        models,
        memory_limit_mb=4,
        residency_seconds=0.2,
        response_cache_mb=1,
        default_min_accuracy="80%",
    )


def times(ms: float) -> dict[str, float]:
    """A variant that is as slow as its card says."""
    return {"latency_ms_at_1": ms, "latency_ms_at_32": 4 * ms, "delay_ms": ms}


class Operator:
    """Who administrates a server that wants keys."""

    def __init__(self, server: Server) -> None:
        self._client = httpx.Client(base_url=f"{server.admin_url}/admin", timeout=PATIENCE_S)
        # The first key closes the server to whoever has none.
        self._client.headers.update(_bearer(self.key("operator", "default", "admin")))

    def call(self, method: str, path: str, **body: object) -> dict[str, object]:
        answer = self._client.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        found: dict[str, object] = answer.json()
        return found

    def key(self, name: str, tenant: str, *scopes: str) -> str:
        """A new key; it may infer, unless other scopes are named."""
        wanted = {"scopes": list(scopes)} if scopes else {}
        return str(self.call("POST", "/keys", name=name, tenant=tenant, **wanted)["key"])


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _headers(**wanted: object) -> dict[str, str]:
    return {f"Gearshift-{name.replace('_', '-')}": str(value) for name, value in wanted.items()}


# What is asked for while everything happens; each is answered, refused or late.
_WISHES = (
    {},
    _headers(Max_Latency_Ms=200),
    _headers(Max_Latency_Ms=50, Min_Accuracy=0.915),
    _headers(Max_Latency_Ms=12, Optimize="cost"),
    _headers(Max_Latency_Ms=3, Min_Accuracy="99%", Relax="latency,accuracy"),
    _headers(Min_Accuracy=0.99, Relax="accuracy"),
    _headers(Min_Accuracy=0.99),
    _headers(Max_Latency_Ms=35, Variant="fp32"),
    _headers(Max_Cost_Usd_Per_Million=0.05),
    _headers(Variant="nobody"),
    {"Authorization": "Bearer nobody"},
)


_ASKED = itertools.count()


@contextmanager
def traffic(
    server: Server,
    model: str,
    keys: tuple[str, ...],
    wishes: tuple[Mapping[str, str], ...],
    clients: int,
    pause_s: float = 0.0,
) -> Iterator[list[int]]:
    """Requests by so many clients until the block is left; yields the statuses as they come."""
    statuses: list[int] = []
    going = True

    def client(number: int) -> None:
        mine = {**(_bearer(keys[number % len(keys)]) if keys else {})}
        turn = itertools.cycle(wishes[number % len(wishes) :] + wishes[: number % len(wishes)])
        # A connection each, so that both workers have some.
        with httpx.Client(base_url=server.client.base_url, timeout=PATIENCE_S) as one:
            while going:
                body, headers = infer_body(), mine | dict(next(turn))
                if (asked := next(_ASKED)) % 5:  # every fifth is the same: a cache may answer it
                    body["inputs"][0]["data"][0][1] = asked
                statuses.append(
                    one.post(f"/v2/models/{model}/infer", json=body, headers=headers).status_code
                )
                if pause_s:
                    time.sleep(pause_s)

    with ThreadPoolExecutor(clients) as pool:
        running: list[Future[None]] = [pool.submit(client, number) for number in range(clients)]
        try:
            yield statuses
        finally:
            going = False
            for one in running:
                one.result(PATIENCE_S)


def make_history(
    first: Server, second: Server, operator: Operator, models: Path, fault: Path
) -> None:
    """Let it all happen to both; returns when it has."""
    keys = (operator.key("alice", "gold", "infer", "read"), operator.key("bob", "silver"))
    echo = "/models/echo/variants"
    write_variant(models, "echo", "candidate", accuracy=0.94, latency_ms_at_1=1, mirror=True)
    first.client.headers.update(_bearer(keys[0]))
    until(lambda: _everywhere(first, "/v2", keys[0]), "all workers know the new key")
    # The worker that is told to make it a shadow must know it.
    ready = "/v2/models/echo/versions/candidate/ready"
    until(lambda: _everywhere(first, ready, keys[0]), "the candidate is loaded")
    operator.call("POST", f"{echo}/candidate/shadow", share=1)
    operator.call("POST", f"{echo}/int8/canary", share=0.3)
    with (
        ThreadPoolExecutor(1) as aside,
        traffic(second, "images", (), ({},), 1, pause_s=0.02),
        traffic(first, "echo", keys, _WISHES, 3, pause_s=0.01) as answered,
    ):
        evictions = aside.submit(_shift_demand, second)
        until(lambda: len(answered) > 100, "some are answered in peace")
        with traffic(first, "echo", keys, _WISHES[:6], 16) as crowd:
            until(lambda: crowd.count(429) > 20 and len(crowd) > 150, "some are refused in a rush")
            until(lambda: 504 in crowd or 504 in answered, "some are late")
        replace_build(models, "echo", "int8", accuracy=0.93, mirror=True, **times(8))
        write_variant(models, "fragile", "broken", fail_load=True)
        fault.write_text("raise")
        pinned = _headers(Variant="fp32")
        with traffic(first, "fragile", keys, ({}, pinned), 4, pause_s=0.02) as faulty:
            until(lambda: len(faulty) > 30 and {200, 503} <= set(faulty), "the breaker opens")
            fault.unlink()
            until(lambda: faulty[-8:].count(200) == 8, "it closes again")
        swapped = "gearshift_variant_swaps_total"
        until(lambda: first.metric(swapped, variant="int8") >= _WORKERS, "the new build serves")
        evictions.result(PATIENCE_S)


def _everywhere(server: Server, path: str, key: str) -> bool:
    """Whether a dozen connections are answered 200, which the system spreads over the workers."""

    def status() -> int:
        with closing(HTTPConnection(server.address, timeout=PATIENCE_S)) as one:
            one.request("GET", path, headers=_bearer(key))
            return one.getresponse().status

    return all(status() == 200 for _ in range(12))


def _shift_demand(server: Server) -> None:
    """Ask for small, then for int8: there is room for one of them beside fp32."""
    fast = _headers(Optimize="latency")
    for variant, wish in (("small", fast), ("int8", fast | _headers(Min_Accuracy=0.915))):
        ready = f"/v2/models/images/versions/{variant}/ready"
        with traffic(server, "images", (), (wish,), 2, pause_s=0.005):
            until(lambda: server.client.get(ready).status_code == 200, "demand shifts")  # noqa: B023


def replace_build(models: Path, model: str, variant: str, **build: Any) -> None:
    """Another build in a variant's place, as a careful operator puts it there."""
    other = {"note.txt": b"another build"}
    fresh = write_variant(models / ".fresh", model, variant, files=other, **build)
    place = models / model / variant
    place.rename(models / ".before")
    fresh.rename(place)
    shutil.rmtree(models / ".before")
    shutil.rmtree(models / ".fresh")
