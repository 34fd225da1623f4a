"""`python -m tests.bench.peers`: install the peers, measure all, print, write their page."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from compressors import machine
from tests.bench import pages
from tests.bench.peers import environments, measure, network, report, servers
from tests.bench.peers.contract import RUNTIME, Peer

_PAGE = Path("docs/benchmarks/peers.md")


def main() -> None:
    """Install, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".peers"), help="environments")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="figures as JSON")
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    parser.add_argument("--smoke", action="store_true", help="everything once, in tiny intervals")
    parser.add_argument("--rounds", type=int, help=f"by default {measure.FULL.rounds}")
    parser.add_argument("--only", help="names of servers/, with commas")
    parser.add_argument("--install", action="store_true", help="install, and measure nothing")
    wanted = parser.parse_args()
    names = wanted.only.split(",") if wanted.only else _names()
    peers: list[Peer] = []
    for name in names:
        module = importlib.import_module(f"{servers.__name__}.{name}")
        peers += [module.PEER, module.WORKERS] if name == "gearshift" else [module.PEER]
    binaries = {peer.name: environments.binaries(peer, wanted.folder) for peer in peers}
    if wanted.install:
        return
    plan = measure.SMOKE if wanted.smoke else measure.FULL
    if wanted.rounds:
        plan = measure.Plan(wanted.rounds, plan.warm_s, plan.closed_s, plan.open_s)
    ran, started_s = pages.here(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gearshift-peers-") as folder:
        work = Path(folder)
        network.write(work)
        turns, checks = measure.rounds(peers, binaries, work, plan)
    minutes = (time.monotonic() - started_s) / 60
    text = f"{_heading(ran, plan, minutes)}\n\n{report.tables(peers, turns, checks)}"
    print(text)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    wanted.out.mkdir(parents=True, exist_ok=True)
    file = wanted.out / f"peers-{now.replace(':', '')}.json"
    results = {"date": now, "machine": machine.describe().model_dump(), "turns": None}
    file.write_text(json.dumps({**results, "turns": measure.as_json(turns)}, indent=1))
    print(f"figures in {file}")
    whole = not (wanted.smoke or wanted.only)
    pages.keep(wanted.docs, _PAGE, "make bench-peers", text, whole=whole)


def _names() -> list[str]:
    found = sorted(module.name for module in pkgutil.iter_modules(servers.__path__))
    return sorted(found, key=lambda name: name != "gearshift")


def _heading(ran: str, plan: measure.Plan, minutes: float) -> str:
    return (
        f"{ran} The load generator shares the cores; the peers run under Debian's Python 3.11; "
        f"{RUNTIME.replace('==', ' ')} for all with one thread a batch. {plan.rounds} round(s), "
        f"closed loop {plan.closed_s:g} s, open loop {plan.open_s:g} s each; {minutes:.0f} minutes "
        "in all. Medians over the rounds; ratios are of the same round."
    )


if __name__ == "__main__":
    main()
