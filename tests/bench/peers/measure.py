"""The run: every server in turn, round after round, each started afresh for its turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

from tests.bench import bare, load, replay, servers
from tests.bench.peers import network
from tests.bench.peers.contract import PIXELS, Peer
from tests.bench.peers.running import running

MANY, ONE = 32, 1
SHARE_OF_PEAK = 0.7


@dataclass(frozen=True)
class Plan:
    """How long each part takes, in seconds; wrk counts whole ones."""

    rounds: int
    warm_s: float
    closed_s: float
    open_s: float


FULL = Plan(rounds=3, warm_s=2, closed_s=4, open_s=6)
SMOKE = Plan(rounds=1, warm_s=1, closed_s=1, open_s=1.5)


@dataclass(frozen=True)
class Cell:
    """What one server did in one form in one round."""

    many: load.Figures
    one: load.Figures
    open: replay.Replayed


@dataclass(frozen=True)
class Turn:
    """One server's turn of one round; `failed` says why where there are no cells."""

    cells: Mapping[str, Cell]
    memory_mb: float
    failed: str = ""


def picture() -> bytes:
    """The row that everybody is sent: 784 numbers of four decimal places, as float32."""
    random = Random(1)
    return pack(f"<{PIXELS}f", *(round(random.random(), 4) for _ in range(PIXELS)))


def rounds(
    peers: Sequence[Peer], binaries: Mapping[str, Path], work: Path, plan: Plan
) -> tuple[dict[str, list[Turn]], list[replay.Replayed]]:
    """All turns by server, and the generator's own check of each round: a bare Starlette route
    asked at the highest rate that was replayed in the round.

    Raises:
        RuntimeError: the first of `peers`, which the others are compared with, failed.
    """
    row = picture()
    expected = network.expected(work, row)
    turns: dict[str, list[Turn]] = {peer.name: [] for peer in peers}
    checks = []
    for number in range(plan.rounds):
        fastest = 1.0
        # Each starts another round: none is always first, or always behind the same one.
        order = [*peers[number % len(peers) :], *peers[: number % len(peers)]]
        for peer in order:
            started_s = time.monotonic()
            turn = _turn(peer, binaries[peer.name], work, row, expected, plan, number)
            turns[peer.name].append(turn)
            fastest = max([fastest, *(cell.open.asked_per_second for cell in turn.cells.values())])
            took_s = time.monotonic() - started_s
            print(f"round {number + 1}: {peer.name}: {_short(turn)} ({took_s:.0f} s)", flush=True)
            if turn.failed and peer is peers[0]:
                raise RuntimeError(f"{peer.name} failed: there is nothing to compare with")
        checks.append(_check(fastest, plan, number))
    return turns, checks


def _turn(
    peer: Peer,
    binaries: Path,
    work: Path,
    row: bytes,
    expected: list[float],
    plan: Plan,
    seed: int,
) -> Turn:
    try:
        with running(peer, binaries, work) as server:
            for form in peer.forms.values():
                server.check(form, row, expected)
            # What an open loop leaves behind must not meet the next form's closed one.
            posts = {name: server.post(form.ask(row)) for name, form in peer.forms.items()}
            closed = {name: _closed(post, plan) for name, post in posts.items()}
            cells = {
                name: Cell(many, one, _replayed(posts[name], many, plan, seed))
                for name, (many, one) in closed.items()
            }
            return Turn(cells, server.memory_mb())
    except (RuntimeError, OSError) as error:  # the others are measured all the same
        return Turn({}, 0.0, str(error))


def _closed(post: load.Post, plan: Plan) -> tuple[load.Figures, load.Figures]:
    load.run(post, connections=MANY, seconds=plan.warm_s)
    many = load.run(post, connections=MANY, seconds=plan.closed_s)
    return many, load.run(post, connections=ONE, seconds=plan.closed_s)


def _replayed(post: load.Post, peak: load.Figures, plan: Plan, seed: int) -> replay.Replayed:
    rate = max(1.0, SHARE_OF_PEAK * peak.requests_per_second)
    return _sent(post, rate, plan.open_s, seed)


def _sent(post: load.Post, rate: float, seconds: float, seed: int) -> replay.Replayed:
    host, _, path = post.url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    request = replay.post(name, int(port), "/" + path, post.body, dict(post.headers))
    due_s = replay.arrivals_s(rate, seconds, seed)
    answers, opened = replay.Replay(name, int(port), request).run(due_s)
    return replay.summary(answers, opened)


def _check(rate: float, plan: Plan, seed: int) -> replay.Replayed:
    with servers.bare("starlette_app") as address:
        post = load.Post(address + bare.PATH, b"0" * (PIXELS * 4), {})
        load.run(post, connections=MANY, seconds=1)
        return _sent(post, rate, min(3.0, plan.open_s), seed)


def _short(turn: Turn) -> str:
    if turn.failed:
        return f"failed: {turn.failed}"
    return ", ".join(
        f"{form} {cell.many.requests_per_second:,.0f}/s, {cell.one.p50_ms:.2f} ms, "
        f"open p99 {cell.open.p99_ms:.1f} ms"
        for form, cell in turn.cells.items()
    )


def as_json(turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Every figure of every round."""
    return {name: [asdict(turn) for turn in taken] for name, taken in turns.items()}


def over_rounds(taken: Sequence[Turn], form: str, figure: Callable[[Cell], float]) -> list[float]:
    """One figure of one form, of the rounds that have it."""
    return [figure(turn.cells[form]) for turn in taken if form in turn.cells]
