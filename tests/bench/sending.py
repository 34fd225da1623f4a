"""Requests sent open-loop to a gateway of its own: each when it is due, whatever befell others."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from router.card import TensorSpec
from router.constraints import Constraints
from router.simulate.trial import Case, Workload, traffic
from tests.e2e.harness import Server

_LEAD_S = 0.5
# The gateway closes a connection that was idle for 5 s.
_IDLE_S = 2.0


class Answer(NamedTuple):
    """What became of one request: all that is compared, of reality and simulation alike.

    Attributes:
        variant: empty where it was not answered in time.
        promised_ms: the bound it was told; 0 where none.
    """

    variant: str
    latency_ms: float
    promised_ms: float


class Sent(NamedTuple):
    """A request as it went: `late_ms` after it was due; the gateway's own times of its answer.

    Attributes:
        shifted: whether another variant answered than was foreseen at arrival.
        why: it was not answered; empty where it was.
    """

    answer: Answer
    status: int
    late_ms: float
    queue_ms: float
    infer_ms: float
    shifted: bool
    why: str


def body_of(inputs: Sequence[TensorSpec], demands: Constraints, rows: int) -> bytes:
    """A JSON infer request of zeros."""
    tensors = []
    for spec in inputs:
        shape = [rows, *(1 if size == -1 else size for size in spec.shape[1:])]
        data = [0] * math.prod(shape)
        tensors.append({"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data})
    said = {
        "max_latency_ms": demands.max_latency_ms,
        "min_accuracy": None if demands.min_accuracy is None else str(demands.min_accuracy),
        "max_cost_usd_per_million": demands.max_cost_usd_per_million,
        "optimize": demands.optimize,
        "variant": demands.variant,
        "relax": ",".join(demands.relax) or None,
        "priority": demands.priority,
    }
    parameters = {key: value for key, value in said.items() if value is not None}
    return json.dumps({"inputs": tensors, "parameters": parameters}).encode()


async def _send(address: str, arrivals_s: Sequence[float], posts: Sequence[bytes]) -> list[Sent]:
    """Send each post at its time, on a connection that is free or a new one."""
    host, port = address.rsplit(":", 1)
    free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(due_s: float, post: bytes) -> Sent:
        while free and time.perf_counter() - free[0][0] > _IDLE_S:
            free.pop(0)[2].close()
        if free:
            _, reader, writer = free.pop()
        else:
            reader, writer = await asyncio.open_connection(host, int(port))
        late_ms = (time.perf_counter() - due_s) * 1000
        writer.write(post)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        # To the answer's first byte, as deadlines are.
        latency_ms = (time.perf_counter() - due_s) * 1000
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        content = await reader.readexactly(int(headers["content-length"]))
        free.append((time.perf_counter(), reader, writer))
        status = int(lines[0].split()[1])
        if status != 200:
            return Sent(
                Answer("", latency_ms, 0.0),
                status,
                late_ms,
                0.0,
                0.0,
                False,
                f"{status} {json.loads(content)['detail']}",
            )
        parts = [part.split(";dur=") for part in headers["server-timing"].split(",")]
        took = {name.strip(): float(ms) for name, ms in parts}
        promised_ms = float(headers["gearshift-predicted-latency-ms"])
        shifted = headers["gearshift-reason"].startswith("shifted-at-dispatch")
        answer = Answer(headers["gearshift-variant"], latency_ms, promised_ms)
        return Sent(
            answer, status, late_ms, took["parse"] + took["queue"], took["infer"], shifted, ""
        )

    start_s = time.perf_counter() + _LEAD_S
    tasks = []
    for arrival_s, post in zip(arrivals_s, posts, strict=True):
        pause_s = start_s + arrival_s - time.perf_counter()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        tasks.append(asyncio.create_task(one(start_s + arrival_s, post)))
    sent = await asyncio.gather(*tasks)
    for _, _, writer in free:
        writer.close()
    return sent


class Live(NamedTuple):
    """A real run: what became of each request, and what the gateway's own time was, in ms a
    request: outside queue and inference, and of the processor."""

    sent: list[Sent]
    overhead_ms: float
    processor_ms: float
    wall_s: float
    batches: float
    busy_ms: float


def live(
    models: Path, name: str, workload: Workload, inputs: Sequence[TensorSpec], case: Case
) -> Live:
    """The arrivals of `case`, sent to a gateway of its own."""
    arrivals_s, tenants = traffic(workload, case)
    with Server(models, lanes=case.lanes, max_batch=workload.max_batch) as server:
        posts = []
        for tenant in workload.mix.tenants:
            body = body_of(inputs, tenant.constraints, tenant.rows)
            head = (
                f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: {server.address}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            posts.append(head.encode() + body)
        before_s, from_s = _processor_s(server.process.pid), time.perf_counter()
        gc.disable()
        sent = asyncio.run(_send(server.address, arrivals_s, [posts[at] for at in tenants]))
        gc.enable()
        used_s, wall_s = _processor_s(server.process.pid) - before_s, time.perf_counter() - from_s
        total_s = server.metric("gearshift_request_seconds_sum", outcome="ok")
        batches = server.batches()
        busy_ms = 1000 * server.metric("gearshift_batch_seconds_sum")
        queued_s = server.metric("gearshift_queue_seconds_sum")
    answered = [one for one in sent if one.answer.variant]
    inferred_ms = math.fsum(one.infer_ms for one in answered)
    overhead_ms = ((total_s - queued_s) * 1000 - inferred_ms) / max(1, len(answered))
    return Live(sent, overhead_ms, used_s * 1000 / len(sent), wall_s, batches, busy_ms)


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
