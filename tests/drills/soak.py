"""The soak: `python -m tests.drills.soak`, or `make soak`; 30 minutes by default.

Mixed traffic over REST and gRPC, clients that leave, bad input, wrong keys; meanwhile variants are
replaced by dropping folders into the store, engines raise, hang and answer nonsense, and lane
processes are killed. Afterwards nothing has leaked, and the clients' counts are the server's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from gateway.trust import keys as api_keys
from gateway.trust.ledger import Ledger
from tests.bench import pages
from tests.drills import clients
from tests.drills.audit import LEFT, accounts, at_rest, grows
from tests.drills.report import PAGE, Check, passed, table
from tests.e2e.harness import Server, until
from tests.stores import write_variant

SECONDS, LANE_KIND = 1800.0, "process"
VARIANTS = (("fp32", 0.95, 8.0), ("int8", 0.93, 4.0), ("small", 0.90, 2.0))
GAUGES = ("gearshift_queued_requests", "gearshift_busy_lanes", "gearshift_lost_lanes")
# What may be more at the end than at first: Python's heap and malloc's arenas take a while to fill.
TOLERANCES = {"resident MB": 12.0, "threads": 2.0, "descriptors": 8.0}


@dataclass
class Seen:
    """Samples by quantity, each (second, value); what disturbed the server, by kind; and what the
    clients got, by outcome."""

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    disturbed: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    left: int = 0

    def note(self, second: float, **values: float) -> None:
        for name, value in values.items():
            self.samples.setdefault(name.replace("_", " "), []).append((second, value))


def store(models: Path, fault: Path) -> None:
    """Models of three variants; of one, a variant fails while `fault` is there."""
    for model in (*clients.MODELS, clients.LEAVING):
        for variant, accuracy, ms in VARIANTS:
            knob = {"fault_file": str(fault)} if (model, variant) == ("echo", "int8") else {}
            write(models, model, variant, accuracy, ms, **knob)


def write(models: Path, model: str, variant: str, accuracy: float, ms: float, **echo: Any) -> Path:
    return write_variant(
        models, model, variant, accuracy=accuracy, latency_ms_at_1=ms, latency_ms_at_32=2 * ms,
        delay_ms=ms, mirror=True, **echo,
    )  # fmt: skip


def swap(models: Path, number: int) -> None:
    """Another build of a variant, put in the place of the one before."""
    with tempfile.TemporaryDirectory(dir=models.parent) as scratch:
        built = write(Path(scratch), "other", "small", 0.90, 2.0 + 0.01 * (number % 7))
        place = models / "other" / "small"
        place.rename(models / "other" / ".before")
        built.rename(place)
        shutil.rmtree(models / "other" / ".before")


def processes(server: Server) -> list[psutil.Process]:
    """The server's, its workers' and its lanes'."""
    whole = psutil.Process(server.process.pid)
    return [whole, *whole.children(recursive=True)]


def sizes(server: Server) -> dict[str, float]:
    """Memory in MB, threads and descriptors of all of them."""
    memory = threads = descriptors = 0.0
    for process in processes(server):
        try:
            memory += process.memory_info().rss / 1e6
            threads += process.num_threads()
            descriptors += process.num_fds()
        except psutil.NoSuchProcess:
            continue
    return {"resident_MB": memory, "threads": threads, "descriptors": descriptors}


@contextmanager
def disturbing(
    server: Server, models: Path, fault: Path, seen: Seen, every_s: float
) -> Iterator[None]:
    """Something goes wrong, or changes, every so often until the block is left."""
    ended = threading.Event()
    dice = Random(1)

    def disturb() -> None:
        number = 0
        while not ended.wait(every_s):
            number += 1
            kinds = ["swap", "raise", "nan", "shape", "hang"]
            lanes = [child for child in processes(server)[1:] if _runs_a_lane(child)]
            kind = dice.choice([*kinds, "kill", "kill"] if lanes else kinds)
            if kind == "swap":
                swap(models, number)
            elif kind == "kill":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(lanes).pid, signal.SIGKILL)
            else:
                fault.write_text(kind)
                ended.wait(0.3)
                fault.unlink()
            seen.disturbed[kind] = seen.disturbed.get(kind, 0) + 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        fault.unlink(missing_ok=True)


def _runs_a_lane(process: psutil.Process) -> bool:
    try:
        return "gateway.execution.lane_process" in " ".join(process.cmdline())
    except psutil.Error:  # it was killed already
        return False


def counted(server: Server, *, leaving: bool = False) -> dict[str, int]:
    """The server's requests by outcome: of those who leave, or of all others."""
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    outcomes: dict[str, int] = {}
    for family in families:
        for sample in family.samples:
            if sample.name == "gearshift_requests_total" and leaving == (
                sample.labels["model"] == clients.LEAVING
            ):
                outcome = sample.labels["outcome"]
                outcomes[outcome] = outcomes.get(outcome, 0) + int(sample.value)
    return outcomes


def soak(
    seconds: float, *, every_s: float = 3.0, pause_s: float = 0.01, told: bool = True, **more: Any
) -> tuple[list[str], Seen]:
    """Soak a server; returns what is wrong, and what was seen.

    Args:
        every_s: between two disturbances.
        pause_s: between two requests of one client, in the mean.
        more: settings of the server.
    """
    seen, count = Seen(), clients.Count()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models, fault = folder / "models", folder / "fault"
        store(models, fault)
        key = _key(models)
        more = {"lanes": 2, "max_batch": 8, "grpc_port": 0, "batch_timeout_seconds": 5, **more}
        # Whether it is ready is everybody's to ask.
        server = stack.enter_context(Server(models, **more))
        server.client.headers["Authorization"] = f"Bearer {key}"
        askers = {
            **{f"rest-{n}": clients.rest(server.address, key) for n in range(3)},
            "grpc": clients.rpc(server.grpc_address, key),
            "leaver": clients.leaver(server.address, key),
        }
        began_s = time.monotonic()
        with (
            disturbing(server, models, fault, seen, every_s),
            clients.asking(askers, count, pause_s),
        ):
            while (age_s := time.monotonic() - began_s) < seconds:
                time.sleep(min(1.0, max(0.05, seconds / 100)))
                assert server.process.poll() is None, server.log()
                seen.note(age_s, **sizes(server), queued=server.metric(GAUGES[0]))
                if told and int(age_s) % 60 == 0:
                    latest = {name: round(values[-1][1]) for name, values in seen.samples.items()}
                    print(f"{age_s:.0f} s: {count.outcomes.total():,} requests, {latest}",
                          flush=True)  # fmt: skip
        until(lambda: not at_rest(_gauges(server)), "nothing is queued, runs or is lost")
        left = count.outcomes.pop(LEFT, 0)
        wrong = [
            *count.broken,
            *accounts(count.outcomes, counted(server)),
            *accounts({LEFT: left}, counted(server, leaving=True)),
            *at_rest(_gauges(server)),
            *leaks(seen),
        ]
        log = server.log()
    seen.outcomes, seen.left = dict(count.outcomes), left
    if told:
        print(f"clients: {seen.outcomes}, {left} left\ndisturbed: {seen.disturbed}")
    if "Task exception was never retrieved" in log or "Task was destroyed" in log:
        wrong.append("a task of the server broke: " + log[-2000:])
    return wrong, seen


def leaks(seen: Seen) -> list[str]:
    """What grew."""
    grown = {name: grows(seen.samples[name], by) for name, by in TOLERANCES.items()}
    return [f"{name} grew by {by:.1f}" for name, by in grown.items() if by]


def _gauges(server: Server) -> dict[str, float]:
    return {name: server.metric(name) for name in GAUGES}


def _key(models: Path) -> str:
    ledger = Ledger(None, models / ".gearshift", "soak")
    scopes = {"name": "soak", "scopes": ["infer", "read", "admin"]}
    key, text = api_keys.create(api_keys.wanted(scopes), datetime.now(UTC))
    ledger.insert(key)
    ledger.close()
    return text


def checks(wrong: Sequence[str], seen: Seen) -> list[Check]:
    """What was looked at, and how it stood at the end."""

    def counts(of: dict[str, int]) -> str:
        return ", ".join(f"{name} {n:,}" for name, n in sorted(of.items(), key=lambda x: -x[1]))

    total = sum(seen.outcomes.values())
    found = [
        Check("requests", "", f"{total:,}: {counts(seen.outcomes)}"),
        Check("callers who left", "", f"{seen.left:,}"),
        Check("disturbances", "", counts(seen.disturbed)),
    ]
    for name, by in TOLERANCES.items():
        values = [value for _, value in seen.samples[name]]
        few = values[:: max(1, len(values) // 5)]
        grown = grows(seen.samples[name], by)
        told = " ".join(f"{value:.0f}" for value in few)
        found.append(Check(name, f"grow by {by:g} at most", told, not grown))
    others = [line for line in wrong if line not in leaks(seen)]
    agreed = "equal, and nothing is queued, runs or is lost"
    told = "; ".join(line[:200] for line in others) or "so they were"
    return [*found, Check("counts of clients and server", agreed, told, not others)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drills.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--lane-kind", default=LANE_KIND, choices=("thread", "process"))
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {PAGE}")
    asked = parser.parse_args(arguments)
    ran = pages.here()
    wrong, seen = soak(asked.seconds, lane_kind=asked.lane_kind)
    found = checks(wrong, seen)
    text = f"{ran} {asked.seconds:g} s, {asked.lane_kind} lanes.\n\n{table(found)}"
    print(text)
    whole = (asked.seconds, asked.lane_kind) == (SECONDS, LANE_KIND)
    pages.keep(asked.docs, PAGE, "make soak", text, whole=whole)
    print("\n".join(wrong) or "nothing lost, nothing leaked")
    return 0 if passed(found) else 1


if __name__ == "__main__":
    sys.exit(main())
