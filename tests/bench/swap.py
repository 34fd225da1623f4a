"""How much a swap disturbs the others: make bench-swap.

Open-loop requests that pin one variant, while another one's build is replaced in the store again
and again. Those that were due while a new build was on its way (from its folder being moved into
place until it serves) are set against those that were due while nothing changed, in the same run.

It works on a copy of the store, and tells of each round p50, p99 and p99.9 with and without a swap,
their ratio, and what failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from gateway.lifecycle import catalog
from router.constraints import Constraints
from tests.bench import load, pages, replay
from tests.bench.sending import body_of
from tests.bench.servers import free_port
from tests.stores import seal

_PAGE = Path("docs/how-to/change.md")
_SECONDS, _ROUNDS, _TARGET = 20.0, 3, 1.3
_START_S = 120.0
_SWAP_S = 60.0
# Nothing changes for this long between two swaps: as much calm as there is change, about.
_CALM_S = 1.5

Span = tuple[float, float]


@contextmanager
def serving(models: Path, lanes: int) -> Iterator[tuple[str, int, str]]:
    """A server of `models`; yields its host, its port and the URL of its admin API."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("gearshift")), "serve"]
    command += ["--models", str(models), "--port", str(port), "--lanes", str(lanes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout is not None
        admin, give_up_s = "", time.monotonic() + _START_S
        for line in process.stdout:
            assert time.monotonic() < give_up_s
            if found := re.match(r"admin on (\S+)", line):
                admin = found[1]
            if line.startswith("ready"):
                break
        yield "127.0.0.1", port, admin
    finally:
        process.terminate()
        process.wait(60)


def replace_build(store: Path, model: str, variant: str, number: int) -> float:
    """Put another build of `variant` in its place: the same network, another digest.

    Returns:
        When it was moved there, on the monotonic clock.
    """
    place, beside = store / model / variant, store / f".{variant}-{number}"
    shutil.copytree(place, beside)
    card = beside / "card.json"
    told = json.loads(card.read_text())
    card.write_text(json.dumps({**told, "description": f"build {number}"}))
    seal(beside)
    place.rename(store / f".{variant}-before")
    began_s = time.monotonic()
    beside.rename(place)
    shutil.rmtree(store / f".{variant}-before")
    return began_s


def swaps(store: Path, admin: str, model: str, variant: str, until_s: float) -> list[Span]:
    """Replace the variant again and again; when each swap began and ended."""
    spans: list[Span] = []
    with httpx.Client(base_url=admin, timeout=30) as client:

        def serves() -> str:
            told = client.get(f"/admin/models/{model}").json()
            build: str = told["variants"][variant]["build"]
            return build

        while time.monotonic() + _CALM_S < until_s:
            time.sleep(_CALM_S)
            before = serves()
            began_s = replace_build(store, model, variant, len(spans))
            while serves() == before:
                assert time.monotonic() < began_s + _SWAP_S, "the new build never served"
                time.sleep(0.02)
            spans.append((began_s, time.monotonic()))
    return spans


def measure(
    store: Path, model: str, pinned: str, swapped: str, *, lanes: int, share: float, seconds: float
) -> tuple[replay.Replayed, replay.Replayed, int]:
    """Figures of what was due in calm and during swaps, and how many swaps there were."""
    entry = catalog.usable(store).models[model][pinned]
    body = body_of(entry.card.inputs, Constraints(variant=pinned), 1)
    path = f"/v2/models/{model}/infer"
    with serving(store, lanes) as (host, port, admin):
        asked = load.Post(f"http://{host}:{port}{path}", body, {"Content-Type": "application/json"})
        peak = load.run(asked, connections=8, seconds=2).requests_per_second
        due_s = replay.arrivals_s(peak * share, seconds, seed=7)
        spans: list[Span] = []
        until_s = time.monotonic() + seconds

        def change() -> None:
            spans.extend(swaps(store, admin, model, swapped, until_s))

        changing = threading.Thread(target=change)
        changing.start()
        sender = replay.Replay(host, port, replay.post(host, port, path, body, asked.headers))
        answers, connections = sender.run(due_s)
        changing.join()
    during = [a for a in answers if any(began <= a.due_s <= end for began, end in spans)]
    calm = [a for a in answers if all(a.due_s < began or a.due_s > end for began, end in spans)]
    return replay.summary(calm, connections), replay.summary(during, connections), len(spans)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="a store with a real model")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--pinned", default="int8", help="the variant that is asked")
    parser.add_argument("--swapped", default="fp32", help="the variant that is replaced")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.5, help="of the peak that is asked for")
    parser.add_argument("--seconds", type=float, default=_SECONDS)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    wanted = parser.parse_args(arguments)
    ran = pages.here()
    ratios, rows = [], []
    for number in range(1, wanted.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder, "models")
            shutil.copytree(wanted.models / wanted.model, store / wanted.model)
            calm, during, count = measure(
                store, wanted.model, wanted.pinned, wanted.swapped,
                lanes=wanted.lanes, share=wanted.share, seconds=wanted.seconds,
            )  # fmt: skip
        ratios.append(during.p99_ms / calm.p99_ms)
        for name, of in (("no swap", calm), (f"{count} swaps", during)):
            figures = (f"{ms:.3f}" for ms in (of.p50_ms, of.p99_ms, of.p999_ms))
            rows.append((str(number), name, f"{of.asked_per_second:.0f}", *figures, str(of.errors)))
            print(" ".join(rows[-1]), flush=True)
    ratio = statistics.median(ratios)
    head = ("round", "due during", "asked/s", "p50 ms", "p99 ms", "p99.9 ms", "failed")
    text = (
        f"{ran} {wanted.pinned} is asked, {wanted.swapped} replaced, {wanted.seconds:g} s a round."
        f"\n\n{pages.table(head, rows)}\np99 during a swap, of that without: {ratio:.2f}, of "
        f"{_TARGET:g} at most: {'met' if ratio <= _TARGET else '**missed**'}."
    )
    print(text)
    whole = (wanted.seconds, wanted.rounds) == (_SECONDS, _ROUNDS)
    pages.keep(wanted.docs, _PAGE, "make bench-swap", text, whole=whole)


if __name__ == "__main__":
    main()
