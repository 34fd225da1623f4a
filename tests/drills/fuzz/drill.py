"""The drill: every kind's share of the cases, and the server that some of them go to."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.drills import mutations
from tests.drills.fuzz import over_http
from tests.drills.fuzz.anything import hypothesis_cases
from tests.drills.fuzz.behind import BEHIND
from tests.drills.fuzz.cases import LIMIT_BYTES, Case, Tally, run
from tests.drills.fuzz.client import Client
from tests.drills.fuzz.over_grpc import rpc
from tests.drills.mutations import DATATYPES
from tests.e2e.harness import Server
from tests.stores import write_variant

AT_THE_DOOR = {"rest": 0.12, "paths": 0.03, "http": 0.04, "grpc": 0.06}
_HYPOTHESIS = 0.05
KINDS = (*BEHIND, "hypothesis", *sorted(AT_THE_DOOR))


def store(models: Path) -> None:
    """A model of each datatype, whose one variant answers with what it was given."""
    for datatype in DATATYPES:
        spec = mutations.spec(datatype)
        write_variant(
            models,
            datatype.lower(),
            "fp32",
            inputs=(spec,),
            outputs=(spec.model_copy(update={"name": "same"}),),
            labels=("low", "high"),
            latency_ms_at_1=0.2,
            latency_ms_at_32=0.4,
            mirror=True,
        )


@contextmanager
def doors(names: set[str]) -> Iterator[tuple[Server, dict[str, Case]]]:
    """A server, and the cases that go to it."""
    with ExitStack() as stack:
        models = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store(models)
        more = {"grpc_port": 0} if "grpc" in names else {}
        server = stack.enter_context(Server(models, max_body_bytes=LIMIT_BYTES, **more))
        cases: dict[str, Case] = {}
        made = {"rest": over_http.rest, "paths": over_http.paths, "http": over_http.http}
        for name, make in made.items():
            client = Client(server.address)
            stack.callback(client.close)
            cases[name] = make(client)
        if "grpc" in names:
            cases["grpc"] = rpc(server.grpc_address, stack)
        yield server, cases


def fuzz(
    cases: int, seed: int, kinds: set[str] | None = None, only: int | None = None
) -> dict[str, Tally]:
    """Run that many cases in all; counts are printed as they come.

    Args:
        kinds: some of `KINDS`; all where none are named.
        only: this number of each kind alone.
    """
    tallies: dict[str, Tally] = {}

    def note(kind: str, tally: Tally) -> None:
        tallies[kind] = tally
        outcomes = ", ".join(f"{name} {count:,}" for name, count in tally.outcomes.most_common())
        print(f"{kind}: {tally.cases:,} cases, slowest {tally.slowest_s * 1000:.0f} ms: {outcomes}",
              flush=True)  # fmt: skip
        for fault in tally.faults[:5]:
            print(f"  FAULT {kind} --seed {seed} --case {fault}", flush=True)

    def numbers(share: float) -> range:
        return range(only, only + 1) if only is not None else range(round(cases * share))

    for kind, (case, share) in BEHIND.items():
        if kinds is None or kind in kinds:
            # A function waits for nothing: what others do with the processor is not its time.
            clock_s = time.thread_time
            note(kind, run(kind, case, seed=seed, numbers=numbers(share), clock_s=clock_s))
    if kinds is None or "hypothesis" in kinds:
        note("hypothesis", hypothesis_cases(max(1, round(cases * _HYPOTHESIS)), seed))
    at_the_door = AT_THE_DOOR.keys() & (AT_THE_DOOR if kinds is None else kinds)
    if at_the_door:
        with doors(set(at_the_door)) as (server, ready):
            for kind in sorted(at_the_door):
                tally = run(kind, ready[kind], seed=seed, numbers=numbers(AT_THE_DOOR[kind]))
                if server.process.poll() is not None:
                    tally.faults.append(f"?: the server ended: {server.log()[-2000:]}")
                note(kind, tally)
            server.await_idle()
            log = server.log()
            if "Traceback" in log:
                told = log[log.index("Traceback") :][:3000]
                tallies[kind].faults.append(f"?: in the server's log: {told}")
                print(told)
    return tallies
