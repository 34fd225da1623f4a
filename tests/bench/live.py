"""`make bench-live`: the same traffic against a real gateway and in simulation.

Arrivals and whose request each is are drawn once. They are sent open-loop, each at its own time
whatever became of those before it, to a gateway process with one lane, and replayed by
`router.simulate` from the same cards, with the time that the gateway itself took per answer.

By default the lane sleeps: variants of the echo engine that take as long as their cards say, and no
processor time. `--models` takes any other store, whose lane then shares the cores with the gateway
and with the sender.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

from gateway.lifecycle import catalog
from gateway.settings import Settings
from router import policies
from router.card import TensorSpec
from router.menu import Menu
from router.route import Policy
from router.simulate import mix
from router.simulate.mix import Mix
from router.simulate.replay import Machine, Model, Outcome, replay
from router.simulate.service import Noise, drawer, service
from router.simulate.trace.parse import parse
from router.simulate.trial import Case, Workload, capacity_per_s, traffic
from tests.bench import pages
from tests.bench.sending import Answer, live
from tests.stores import write_variant

_MODEL = "echo"
# As many ms a batch, whatever its rows; the card says what a sleep of that long takes: so much
# more, and up to so much more again.
_SLEEPS = (("fp32", 0.95, 40.0), ("int8", 0.93, 20.0), ("half", 0.90, 10.0), ("small", 0.85, 5.0))
_SLEPT_MS = 0.2
_TAIL_MS = 0.8
_MAX_BATCH = 4
_MIX = """
[[tenant]]
name = "interactive"
share = 5
max_latency_ms = 60
priority = "high"

[[tenant]]
name = "careful"
share = 2
max_latency_ms = 250
min_accuracy = 0.91

[[tenant]]
name = "bulk"
share = 3
max_latency_ms = 150
priority = "low"
"""
_PAGE = Path("docs/explanation/routing.md")
_LOADS, _SECONDS, _GAP_MS = "0.5,1,1.5", 10.0, 0.4


class Figures(NamedTuple):
    """Shares from 0 to 1."""

    attainment: float
    accuracy_all: float
    accuracy_answered: float
    coverage: float
    variants: dict[str, float]


def figures(answers: Sequence[Answer], menu: Menu) -> Figures:
    """The figures that reality and simulation are compared by."""
    kept = [answer for answer in answers if answer.variant]
    accuracy = math.fsum(menu.by_name[answer.variant].accuracy for answer in kept)
    covered = sum(answer.latency_ms <= answer.promised_ms + 1e-6 for answer in kept)
    mixed = Counter(answer.variant for answer in kept)
    return Figures(
        len(kept) / len(answers),
        accuracy / len(answers),
        accuracy / len(kept) if kept else math.nan,
        covered / len(kept) if kept else math.nan,
        {offer.name: mixed[offer.name] / len(answers) for offer in menu.offers},
    )


def simulated(
    workload: Workload, case: Case, overhead_ms: float, gap_ms: float = 0.0
) -> list[Outcome]:
    """The arrivals of `case`, replayed with our policy."""
    arrivals_s, tenants = traffic(workload, case)
    machine = Machine(
        case.lanes,
        drawer(workload.services),
        max_batch=workload.max_batch,
        max_queue=workload.max_queue,
        overhead_ms=overhead_ms,
        gap_ms=gap_ms,
    )
    return replay(
        arrivals_s,
        tenants,
        workload.mix,
        {name: Model(menu, frozenset(menu.by_name)) for name, menu in workload.menus.items()},
        machine,
        policies.get("gearshift"),
        workload.policy,
        Random(f"service {case.seed}"),
    )


def echo_store(models: Path) -> None:
    """Four variants whose batches take as long as their cards say, and no processor time."""
    for variant, accuracy, ms in _SLEEPS:
        write_variant(
            models,
            _MODEL,
            variant,
            accuracy=accuracy,
            latency_ms_at_1=ms + _SLEPT_MS,
            latency_ms_at_32=ms + _SLEPT_MS,
            tail_ms=_TAIL_MS,
            delay_ms=ms,
        )


def workload_of(
    models: Path, name: str, arriving: str, mixed: Mix, max_batch: int
) -> tuple[Workload, Sequence[TensorSpec]]:
    """What a server of `models` would be asked, with its defaults but for `max_batch`."""
    settings = Settings.model_validate({"models": models, "max_batch": max_batch})
    entries = catalog.usable(models).models[name]
    menu = catalog.menu_of(
        entries,
        percentile=settings.latency_percentile,
        usd_per_lane_hour=settings.usd_per_lane_hour,
        max_batch=max_batch,
    )
    services = {
        (name, variant): service(entry.card.latency, Noise(), max_batch)
        for variant, entry in entries.items()
    }
    path = Path(arriving)
    workload = Workload(
        arriving=parse(path.name, path.read_bytes()) if path.is_file() else arriving,
        requests=1,
        mix=mixed,
        menus={name: menu},
        services=services,
        policy=Policy(settings.accuracy_margin, settings.default_constraints),
        max_batch=max_batch,
        max_queue=settings.max_queue,
    )
    return workload, entries[menu.reference].card.inputs


def _percents(of: Figures) -> str:
    shares = " ".join(f"{100 * share:.0f}" for share in of.variants.values())
    return (
        f"{100 * of.attainment:.2f} | {100 * of.accuracy_all:.2f} | "
        f"{100 * of.accuracy_answered:.2f} | {100 * of.coverage:.1f} | {shares}"
    )


def _difference(real: Figures, simulated: Figures) -> str:
    return " | ".join(f"{100 * (a - b):+.2f}" for a, b in zip(real[:4], simulated[:4], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--models", type=Path, help="a store; by default variants that sleep")
    parser.add_argument("--model", default=_MODEL, help="a model of the store")
    parser.add_argument("--mix", type=Path, help="tenants, as gearshift simulate takes them")
    parser.add_argument("--trace", action="append", help="a process or a file; may be repeated")
    parser.add_argument("--load", default=_LOADS, help="as gearshift simulate counts load")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of traffic, each run")
    parser.add_argument("--max-batch", type=int, help="rows of a batch")
    parser.add_argument(
        "--gap-ms",
        type=float,
        default=_GAP_MS,
        help="of a lane between batches, in a second replay",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--docs", type=Path, help=f"the page; of a whole run {_PAGE}")
    args = parser.parse_args()
    ran, rows = pages.here(), []
    mixed = mix.parse(args.mix.read_text() if args.mix else _MIX, "mix")
    with ExitStack() as stack:
        models = args.models
        if models is None:
            models = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            echo_store(models)
        most = args.max_batch or (32 if args.models else _MAX_BATCH)
        print(
            "| arrivals | load | requests/s | | in time % | accuracy, all % | answered % | "
            "within bound % | variants % | as foreseen, within bound % | overhead ms | "
            "gateway CPU % | sent late, p99 ms |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
        for arriving in args.trace or ["poisson", "gamma:cv=4"]:
            workload, inputs = workload_of(models, args.model, arriving, mixed, most)
            for load in map(float, args.load.split(",")):
                rows.append(_compare(models, args.model, workload, inputs, arriving, load, args))
    head = ["arrivals", "load", "requests/s"]
    for figure in ("in time %", "accuracy, all %"):
        head += [f"{figure}, gateway", "replay", "difference"]
    text = (
        f"{ran} {args.seconds:g} s a run, one draw; the replay leaves {args.gap_ms:g} ms of a lane "
        f"between batches.\n\n{pages.table(head, rows)}"
    )
    asked = [args.models, args.mix, args.trace, args.max_batch, args.load, args.seconds, args.seed]
    whole = [*asked, args.gap_ms] == [None] * 4 + [_LOADS, _SECONDS, 1, _GAP_MS]
    pages.keep(args.docs, _PAGE, "make bench-live", text, whole=whole)


def _compare(
    models: Path,
    name: str,
    workload: Workload,
    inputs: Sequence[TensorSpec],
    arriving: str,
    load: float,
    args: argparse.Namespace,
) -> list[str]:
    """Print both, and return them as a row of the page."""
    case = Case(capacity_per_s(workload, 1) * load, 1, args.seed)
    drawn = replace(workload, requests=round(case.rate_per_s * args.seconds))
    ran = live(models, name, drawn, inputs, case)
    menu = drawn.menus[name]
    # By the gateway's own clock, as its bound is meant and as a simulation counts.
    own = [
        one.answer._replace(latency_ms=one.queue_ms + one.infer_ms + ran.overhead_ms)
        for one in ran.sent
    ]
    real = figures(own, menu)
    foreseen = [
        answer for answer, one in zip(own, ran.sent, strict=True) if one.why or not one.shifted
    ]
    kept_ones = figures(foreseen, menu).coverage
    late_ms = sorted(one.late_ms for one in ran.sent)[int(0.99 * len(ran.sent))]
    cpu = ran.processor_ms * len(ran.sent) / ran.wall_s / 10
    print(
        f"| {arriving} | {load:g} | {case.rate_per_s:.0f} | gateway | {_percents(real)} | "
        f"{100 * kept_ones:.1f} | {ran.overhead_ms:.2f} | {cpu:.0f} | {late_ms:.2f} |"
    )
    statuses = dict(Counter(one.why for one in ran.sent if one.why))
    span_ms = 10 * (traffic(drawn, case)[0][-1])
    busy = f"lane busy {ran.busy_ms / span_ms:.1f} % in {ran.batches:.0f} batches"
    print(f"{arriving} {load:g}: gateway: {busy}; {statuses}", file=sys.stderr)
    for gap_ms in dict.fromkeys((0.0, args.gap_ms)):
        outcomes = simulated(drawn, case, ran.overhead_ms, gap_ms)
        replayed = figures(
            [Answer(o.variant if o.kept else "", o.latency_ms, o.predicted_ms) for o in outcomes],
            menu,
        )
        verdicts = dict(Counter(o.verdict for o in outcomes))
        busy = f"lane busy {math.fsum(o.lane_ms for o in outcomes) / span_ms:.1f} %"
        called = f"simulation, gap {gap_ms:g} ms"
        print(f"{arriving} {load:g}: {called}: {busy}; {verdicts}", file=sys.stderr)
        print(f"| | | | {called} | {_percents(replayed)} | | | | |")
        print(f"| | | | difference | {_difference(real, replayed)} | | | | | |", flush=True)
    row = [arriving, f"{load:g}", f"{case.rate_per_s:.0f}"]
    for measured, told in zip(real[:2], replayed[:2], strict=True):
        row += [f"{100 * measured:.2f}", f"{100 * told:.2f}", f"{100 * (measured - told):+.2f}"]
    return row


if __name__ == "__main__":
    main()
