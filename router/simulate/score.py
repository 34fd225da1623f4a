"""Scores: what came of a replay, in the figures by which policies are compared.

Every request counts, also those refused on arrival. A request is answered when its answer came in
time; one without a deadline, when it came at all. Two definitions of effective accuracy are in use
and both are kept: over all requests, where one that is not answered counts 0 (Zhang et al. 2020,
Model-Switching: Dealing with Fluctuating Workloads in Machine-Learning-as-a-Service Systems), and
over those answered (Ahmad et al. 2024, Proteus: A High-Throughput Inference-Serving System with
Accuracy Scaling).
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

from router.menu import Menu, Offer
from router.simulate.replay import Outcome

# A gain smaller than this leaves nothing to tell policies apart by.
LEAST_GAIN = 0.002

# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond, the normal's.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_T_BEYOND = 1.96


class Score(NamedTuple):
    """What came of one replay.

    Attributes:
        attainment: share of all requests that were answered, in time.
        effective_accuracy_all: mean accuracy over all requests, unanswered ones counting 0.
        effective_accuracy_answered: mean accuracy of the answers; NaN without any.
        cost_usd_per_million: what a million such answers are charged for lane time; NaN without
            any. Lane time spent on what was late is nobody's charge.
        answers: answers by (model, variant).
        verdicts: requests by what became of them.
    """

    attainment: float
    effective_accuracy_all: float
    effective_accuracy_answered: float
    cost_usd_per_million: float
    answers: Mapping[tuple[str, str], int]
    verdicts: Mapping[str, int]


def score(outcomes: Sequence[Outcome], model_of: Sequence[str], menus: Mapping[str, Menu]) -> Score:
    """The score of a replay.

    Args:
        outcomes: one or more.
        model_of: by tenant, whose requests they are.
        menus: by model.
    """
    answers: Counter[tuple[str, str]] = Counter()
    accuracy: list[float] = []
    usd: list[float] = []
    for outcome in outcomes:
        if not outcome.kept:
            continue
        model = model_of[outcome.tenant]
        offer = menus[model].by_name[outcome.variant]
        answers[model, offer.name] += 1
        accuracy.append(offer.accuracy)
        usd.append(outcome.lane_ms * offer.usd_per_million_lane_ms)
    total = math.fsum(accuracy)
    return Score(
        attainment=len(accuracy) / len(outcomes),
        effective_accuracy_all=total / len(outcomes),
        effective_accuracy_answered=total / len(accuracy) if accuracy else math.nan,
        cost_usd_per_million=math.fsum(usd) / len(usd) if usd else math.nan,
        answers=dict(answers),
        verdicts=dict(Counter(outcome.verdict for outcome in outcomes)),
    )


@dataclass(slots=True)
class Window:
    """What became of the requests that arrived within a stretch of time.

    Attributes:
        from_s, to_s: the stretch.
        requests: how many arrived in it.
        answers: those of them that were answered in time, by (model, variant).
        accuracy, usd_per_million: sums over the answers.
    """

    from_s: float
    to_s: float
    requests: int
    answers: Counter[tuple[str, str]]
    accuracy: float = 0.0
    usd_per_million: float = 0.0

    @property
    def answered(self) -> int:
        return self.answers.total()


def windows(
    outcomes: Sequence[Outcome],
    model_of: Sequence[str],
    menus: Mapping[str, Menu],
    count: int,
) -> list[Window]:
    """The replay cut into `count` stretches of equal length, by arrival."""
    first, last = outcomes[0].at_s, outcomes[-1].at_s
    length = (last - first) / count or 1.0
    found = [
        Window(first + at * length, first + (at + 1) * length, 0, Counter()) for at in range(count)
    ]
    for outcome in outcomes:
        window = found[min(int((outcome.at_s - first) / length), count - 1)]
        window.requests += 1
        if outcome.kept:
            model = model_of[outcome.tenant]
            offer: Offer = menus[model].by_name[outcome.variant]
            window.answers[model, offer.name] += 1
            window.accuracy += offer.accuracy
            window.usd_per_million += outcome.lane_ms * offer.usd_per_million_lane_ms
    return found


class Figure(NamedTuple):
    """A mean over seeds, and half the width of its 95 % interval; NaN from a single one."""

    mean: float
    half: float


def over_seeds(values: Sequence[float]) -> Figure:
    """The mean of one or more values and its 95 % interval, by Student's t."""
    mean = math.fsum(values) / len(values)
    return Figure(mean, _half([value - mean for value in values]))


def share_of_gain(
    ours: Sequence[float], best_static: Sequence[float], bound: Sequence[float]
) -> Figure | None:
    """How much of what a perfect policy would gain over the best single variant was gained.

    Each by seed. None where there is not `LEAST_GAIN` to be had. A ratio of means, whose interval
    is that of its linearisation (Cochran 1977, Sampling Techniques, 6.4): draws with much to gain
    are draws with much gained.
    """
    gains = [most - best for most, best in zip(bound, best_static, strict=True)]
    gained = [own - best for own, best in zip(ours, best_static, strict=True)]
    gain = math.fsum(gains) / len(gains)
    if gain < LEAST_GAIN:
        return None
    ratio = math.fsum(gained) / math.fsum(gains)
    return Figure(
        ratio, _half([(own - ratio * most) / gain for own, most in zip(gained, gains, strict=True)])
    )


def _half(deviations: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean, by the deviations from it."""
    count = len(deviations)
    if count < 2:
        return math.nan
    spread = math.sqrt(math.fsum(one * one for one in deviations) / (count - 1))
    t = _T[count - 2] if count - 2 < len(_T) else _T_BEYOND
    return t * spread / math.sqrt(count)


@dataclass(frozen=True, slots=True)
class Line:
    """One replay, as a line of the CSV file; its fields are the columns, in order."""

    trace: str
    load: float
    lanes: int
    seed: int
    policy: str
    attainment: float
    effective_accuracy_all: float
    effective_accuracy_answered: float
    cost_usd_per_million: float
    bound: float


COLUMNS = tuple(field.name for field in fields(Line))
_KINDS: tuple[Callable[[str], object], ...] = (
    str, float, int, int, str, float, float, float, float, float,
)  # fmt: skip


def as_csv(lines: Sequence[Line]) -> str:
    """`lines` under a header, every figure in full; NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        writer.writerow(["" if value != value else value for value in astuple(line)])
    return text.getvalue()


def from_csv(text: str) -> list[Line]:
    """The lines that `as_csv` wrote.

    Raises:
        ValueError: the header is another one, or a cell does not fit.
    """
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    if tuple(header) != COLUMNS:
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}, got {', '.join(header)}")
    return [
        Line(*(kind(cell or "nan") for kind, cell in zip(_KINDS, row, strict=True)))  # type: ignore[arg-type]
        for row in rows
    ]
