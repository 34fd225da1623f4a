"""The history: what became of requests, in steps of five seconds, for a quarter of an hour.

Counted as requests end, so that a page which is opened now shows what was before. Latencies are
counted in classes that are 5 % wide: a percentile of any number of them is right within 5 %.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import log
from typing import Any

from gateway.messages import InferRequest, InferResponse
from router import deadlines
from router.constraints import NONE, Constraints
from router.errors import GearshiftError

STEP_S = 5
MINUTES = 15
_STEPS = MINUTES * 60 // STEP_S
_PER_E = 20
_LEAST_S = 1e-5
_LEAST = int(math.log(_LEAST_S) * _PER_E)

Classes = dict[int, int]
"""How many latencies each class holds, by its number."""


class _Answers:
    """Those of one variant in one step."""

    __slots__ = ("classes", "kept", "relaxed")

    def __init__(self) -> None:
        self.classes: Classes = defaultdict(int)
        self.kept = self.relaxed = 0


class _Step:
    """Five seconds."""

    __slots__ = ("answers", "busy", "counts", "failed", "queued", "samples")

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], _Answers] = {}
        self.failed: dict[tuple[str, str], int] = defaultdict(int)
        # By model, and what became of a deadline: "missed", "shed" or "broken".
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        self.queued = self.busy = self.samples = 0


class History:
    """Of this process. Used on the event loop's thread alone."""

    def __init__(self) -> None:
        self._steps: dict[int, _Step] = {}
        self._step = _Step()
        self._from_s = self._until_s = 0.0

    def answered(
        self,
        request: InferRequest,
        response: InferResponse,
        total_s: float,
        at_s: float,
        default: Constraints = NONE,
    ) -> None:
        """One request was answered at `at_s` of Unix time, `total_s` after its last byte.

        Args:
            default: what holds for a request that demands nothing.
        """
        step = self._step if self._from_s <= at_s < self._until_s else self._at(at_s)
        decision = response.decision
        key = request.model, decision.variant
        answers = step.answers.get(key)
        if answers is None:
            answers = step.answers[key] = _Answers()
        # As `latency_class`, whose call would cost as much again.
        answers.classes[int(log(total_s) * _PER_E) if total_s > _LEAST_S else _LEAST] += 1
        limit_ms = deadlines.limit_ms(request.constraints, default)
        if limit_ms is not None:
            if deadlines.of_answer(total_s, limit_ms) == "kept":
                answers.kept += 1
            else:
                answers.relaxed += 1

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        at_s: float,
        constraints: Constraints | None,
        default: Constraints = NONE,
    ) -> None:
        """One request for a model that there is ended at `at_s` without an answer.

        Args:
            total_s: from its last byte to its end.
            constraints: what it stated; None where it could not be read.
            default: what holds for a request that demands nothing.
        """
        step = self._at(at_s)
        step.failed[model, error.code] += 1
        outcome = deadlines.of_failure(error, deadlines.limit_ms(constraints, default), total_s)
        if outcome is not None:
            step.counts[model, outcome] += 1

    def sampled(self, queued: int, busy: int, at_s: float) -> None:
        """So many requests waited and so many lanes were busy at that moment: the most is kept of
        the one, and of the other the mean."""
        step = self._at(at_s)
        step.queued = max(step.queued, queued)
        step.busy += busy
        step.samples += 1

    def share(self, minutes: int, at_s: float) -> dict[str, Any]:
        """The last `minutes`, up to `MINUTES`, as `joined` wants them: plain JSON values."""
        last = int(at_s // STEP_S)
        first = last - min(minutes * 60 // STEP_S, _STEPS) + 1
        models: dict[str, dict[str, Any]] = {}

        def of(model: str) -> dict[str, Any]:
            empty: dict[str, Any] = {"variants": {}, "failed": {}, "counts": {}, "latencies": {}}
            return models.setdefault(model, empty)

        steps = {number - first: step for number, step in self._steps.items() if number >= first}
        for at, step in steps.items():
            for (model, variant), answers in step.answers.items():
                one = of(model)
                one["variants"].setdefault(variant, {})[at] = sum(answers.classes.values())
                merge(one["latencies"].setdefault(at, {}), answers.classes)
                for name in ("kept", "relaxed"):
                    counted = one["counts"].setdefault(name, {})
                    counted[at] = counted.get(at, 0) + getattr(answers, name)
            for kind, counted in (("failed", step.failed), ("counts", step.counts)):
                for (model, name), count in counted.items():
                    of(model)[kind].setdefault(name, {})[at] = count
        return {
            "first": first,
            "steps": last - first + 1,
            "models": models,
            "queued": {at: step.queued for at, step in steps.items() if step.queued},
            "busy": {at: step.busy / step.samples for at, step in steps.items() if step.busy},
        }

    def lately(self, seconds: int, at_s: float) -> dict[str, dict[str, Classes]]:
        """Latencies of the last so many seconds, by model and variant."""
        first = int((at_s - seconds) // STEP_S) + 1
        found: dict[str, dict[str, Classes]] = {}
        for number, step in self._steps.items():
            if number < first:
                continue
            for (model, variant), answers in step.answers.items():
                merge(found.setdefault(model, {}).setdefault(variant, {}), answers.classes)
        return found

    def _at(self, at_s: float) -> _Step:
        if not self._from_s <= at_s < self._until_s:
            number = int(at_s // STEP_S)
            self._from_s, self._until_s = number * STEP_S, (number + 1) * STEP_S
            # Of a clock that was set back, what is kept of that time goes on.
            self._step = self._steps.setdefault(number, _Step())
            for old in [each for each in self._steps if not 0 <= number - each < _STEPS]:
                del self._steps[old]
        return self._step


def latency_class(seconds: float) -> int:
    """The number of the class that a latency falls into: 20 for each factor of e."""
    return int(log(seconds) * _PER_E) if seconds > _LEAST_S else _LEAST


def percentile_ms(classes: Mapping[int, int], percentile: float) -> float | None:
    """The percentile of latencies, in ms; None where there are none."""
    left = percentile / 100 * sum(classes.values())
    for number in sorted(classes):
        left -= classes[number]
        if left <= 0:
            # Classes of less than a second have negative numbers, and are cut towards zero.
            middle = number + math.copysign(0.5, number) if number else 0.0
            return float(f"{1000 * math.exp(middle / _PER_E):.3g}")
    return None


def joined(shares: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The history of several processes as one, as the console's API has it.

    Args:
        shares: of each, as `History.share` made it and JSON may have brought it. Clocks are the
            machine's; one that was asked just before a step began lacks that one alone.
    """
    told = list(shares)
    first = max(share["first"] for share in told)
    steps = max(share["steps"] for share in told)
    models: dict[str, dict[str, Any]] = {}
    queued, busy = [0] * steps, [0.0] * steps

    def add(into: list[Any], values: Mapping[Any, Any], shift: int) -> None:
        for at, value in values.items():
            place = int(at) - shift
            if 0 <= place < steps:
                into[place] += value

    latencies: dict[str, list[Classes]] = {}
    for share in told:
        shift = first - share["first"]
        add(queued, share["queued"], shift)
        add(busy, share["busy"], shift)
        for name, one in share["models"].items():
            zeros: dict[str, Any] = {key: [0] * steps for key in deadlines.OUTCOMES}
            model = models.setdefault(name, {"variants": {}, "failed": {}, **zeros})
            for kind in ("variants", "failed"):
                for each, values in one[kind].items():
                    add(model[kind].setdefault(each, [0] * steps), values, shift)
            for key, values in one["counts"].items():
                add(model[key], values, shift)
            merged = latencies.setdefault(name, [{} for _ in range(steps)])
            for at, classes in one["latencies"].items():
                place = int(at) - shift
                if 0 <= place < steps:
                    merge(merged[place], classes)
    for name, model in models.items():
        model["p99_ms"] = [percentile_ms(classes, 99) for classes in latencies[name]]
    return {
        "step_s": STEP_S,
        "from_ms": first * STEP_S * 1000,
        "models": models,
        "queued": queued,
        "busy": [round(each, 3) for each in busy],
    }


def merge(into: Classes, more: Mapping[Any, int]) -> None:
    """Add the classes of `more`, whose numbers JSON may have made texts."""
    for number, count in more.items():
        key = int(number)
        into[key] = into.get(key, 0) + count
