"""`python -m tests.bench.profile`: sample a loaded gateway, draw a picture, print the shares.

The network of the peers' benchmark, its constraints, 32 connections. py-spy samples from outside,
installed in an environment of its own; it counts a thread only while it runs.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.bench import load, pages
from tests.bench.peers import environments, network
from tests.bench.peers.contract import Peer
from tests.bench.peers.measure import MANY, picture
from tests.bench.peers.running import Running, running
from tests.bench.peers.servers.gearshift import PEER
from tests.bench.profile import parts
from tests.bench.profile.draw import draw

_RATE, _SECONDS = 400, 8.0
_PICTURE, _PAGE = Path("docs/pictures/time.svg"), Path("docs/benchmarks/performance.md")
_TOOL = Peer(
    name="py-spy",
    version="0.4.3",
    requirements=("py-spy==0.4.3",),
    command=lambda *_: (),
    ready="",
    forms={},
    setup="",
)


def main() -> None:
    """Sample, draw, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".peers"), help="environments")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of each form")
    parser.add_argument("--picture", type=Path, help=f"the picture; of a whole run {_PICTURE}")
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    parser.add_argument("--stacks", type=Path, help="a folder to keep the sampled stacks in")
    wanted = parser.parse_args()
    ran = pages.here()
    spy = environments.binaries(_TOOL, wanted.folder) / "py-spy"
    shares: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        work = Path(folder)
        network.write(work)
        binaries = environments.binaries(PEER, wanted.folder)
        server = stack.enter_context(running(PEER, binaries, work))
        for form, called in PEER.forms.items():
            raw, rate = _sampled(spy, server, form, wanted.seconds, work)
            if wanted.stacks:
                wanted.stacks.mkdir(parents=True, exist_ok=True)
                (wanted.stacks / f"{form}.txt").write_text(raw)
            print(f"{called.says}: {rate:,.0f} requests/s while sampled")
            counted = parts.by_thread(raw)
            for kind in (parts.LOOP, parts.LANES):
                shares[f"{called.says}: {kind}"] = counted.get(kind, Counter())
    samples = round(wanted.seconds * _RATE)
    whole = wanted.seconds == _SECONDS
    if picture_file := wanted.picture or (_PICTURE if whole else None):
        draw(picture_file, shares, samples)
        print(f"picture in {picture_file}")
    text = _table(ran, shares, samples)
    print(text)
    pages.keep(wanted.docs, _PAGE, "make bench-picture", text, whole=whole)


def _sampled(
    spy: Path, server: Running, form: str, seconds: float, work: Path
) -> tuple[str, float]:
    post = server.post(PEER.forms[form].ask(picture()))
    load.run(post, connections=MANY, seconds=2)
    figures: list[load.Figures] = []
    loader = threading.Thread(
        target=lambda: figures.append(load.run(post, connections=MANY, seconds=seconds + 3))
    )
    loader.start()
    out = work / f"{form}.txt"
    ended = subprocess.run(
        [
            *(str(spy), "record", "--pid", str(server.process.pid), "--format", "raw"),
            *("--threads", "--nonblocking", "--full-filenames", "--output", str(out)),
            *("--rate", str(_RATE), "--duration", str(round(seconds))),
        ],
        capture_output=True,
        text=True,
    )
    loader.join()
    if ended.returncode or not out.exists():
        raise RuntimeError(f"py-spy ended with {ended.returncode}: {ended.stderr[-1000:]}")
    return out.read_text(), figures[0].requests_per_second


def _table(ran: str, shares: dict[str, Counter[str]], samples: int) -> str:
    names = [*parts.PARTS, parts.LOOP, parts.OTHER]
    rows = []
    for name in names:
        found = [counted[name] / samples for counted in shares.values()]
        if any(share >= 0.005 for share in found):
            rows.append((name, *(f"{100 * share:.0f}" for share in found)))
    busy = [sum(counted.values()) / samples for counted in shares.values()]
    rows.append(("**runs, of one core**", *(f"**{100 * share:.0f}**" for share in busy)))
    head = ("% of the time", *shares)
    return (
        f"![Where the time goes](../{_PICTURE.relative_to('docs')})\n\n"
        f"{ran} What each thread runs, as a share of one core; lanes are counted together.\n\n"
        + pages.table(head, rows)
    )


if __name__ == "__main__":
    main()
