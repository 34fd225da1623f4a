"""`python -m tests.bench.peers`: install the peers, measure all, print, write their page."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import platform
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from compressors import machine
from tests.bench import pages
from tests.bench.peers import environments, measure, network, report, servers
from tests.bench.peers.contract import RUNTIME, Peer


def main() -> None:
    """Install, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".peers"), help="environments")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="figures as JSON")
    parser.add_argument("--docs", type=Path, default=Path("docs/benchmarks/peers.md"))
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
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gearshift-peers-") as folder:
        work = Path(folder)
        network.write(work)
        turns, checks = measure.rounds(peers, binaries, work, plan)
    minutes = (time.monotonic() - started_s) / 60
    text = f"{_heading(plan, minutes)}\n\n{report.tables(peers, turns, checks)}"
    print(text)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    wanted.out.mkdir(parents=True, exist_ok=True)
    file = wanted.out / f"peers-{now.replace(':', '')}.json"
    results = {"date": now, "machine": machine.describe().model_dump(), "turns": None}
    file.write_text(json.dumps({**results, "turns": measure.as_json(turns)}, indent=1))
    print(f"figures in {file}")
    if wanted.smoke or wanted.only:
        print(f"{wanted.docs} is left as it is: not a whole run")
    else:
        pages.write(wanted.docs, "make bench-peers", text)
        print(f"tables in {wanted.docs}")


def _names() -> list[str]:
    found = sorted(module.name for module in pkgutil.iter_modules(servers.__path__))
    return sorted(found, key=lambda name: name != "gearshift")


def _heading(plan: measure.Plan, minutes: float) -> str:
    here = machine.describe()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit or 'unknown'}: {here.cpu}, {here.cores} "
        f"cores that the load generator shares, {here.memory_bytes / 2**30:.0f} GiB, "
        f"{here.system}, "
        f"Python {platform.python_version()} for Gearshift and Debian's 3.11 for the peers, "
        f"{RUNTIME.replace('==', ' ')} for all with one thread a batch. {plan.rounds} round(s), "
        f"closed loop {plan.closed_s:g} s, open loop {plan.open_s:g} s each; {minutes:.0f} minutes "
        "in all. Medians over the rounds; ratios are of the same round."
    )


if __name__ == "__main__":
    main()
