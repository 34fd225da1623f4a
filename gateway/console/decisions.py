"""The latest decisions: what each was asked, what came of it, and why.

What is kept of a request is bounded and holds none of its tensors. An exception is not kept either:
its traceback would hold on to everything that its frames do. It is written out when somebody looks.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from gateway.messages import InferRequest, InferResponse, Origin
from router.constraints import HEADERS, KEYS, NONE, TIMEOUT_PARAMETER, Constraints, Floor
from router.decision import Decision
from router.errors import (
    CallerLeft,
    DeadlinePassed,
    GearshiftError,
    InvalidRequest,
    NotReady,
    Overloaded,
    Unauthorized,
    Unsatisfiable,
)

# Kept of each model: answers come thousands a second, refusals are what one looks for, and those of
# one kind may come by the thousand as well.
_MOST_ANSWERS = 256
_MOST_OF_A_FAILURE = 64
OK = "ok"
"""The outcome of an answer; that of a failure is its error's code."""

# Errors whose texts are the server's own. The others may quote what their callers sent, or what an
# engine made of it.
_OWN_WORDS = (Unsatisfiable, Overloaded, NotReady, DeadlinePassed, CallerLeft, Unauthorized)
_FIELD = re.compile(
    r"(?:inputs|outputs)(?:\[\d+\])?(?:\.(?:name|shape|datatype|data|parameters))?|body|rows|id"
    + "".join(rf"|(?:parameters\.)?{key}" for key in (*KEYS, TIMEOUT_PARAMETER))
    + "".join(rf"|{re.escape(header)}" for header in HEADERS),
)


class _Kept(NamedTuple):
    id: int
    at_s: float
    model: str
    outcome: str
    decision: Decision | None
    constraints: Constraints
    tenant: str
    protocol: str
    total_s: float
    bound_ms: float
    usd_per_million: float
    detail: str


class Decisions:
    """The latest answers and failures of each model. Used on the event loop's thread alone.

    Args:
        known: whether a model is one of the store's; the names of others are their callers' words.
            What was kept of a model that is none any more is shown until another one comes.
    """

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known
        self._answers: dict[str, deque[tuple[Any, ...]]] = {}
        # By model and outcome; of models that are not known, under none.
        self._failures: dict[tuple[str, str], deque[_Kept]] = {}
        self._last = 0

    def answered(
        self, request: InferRequest, response: InferResponse, total_s: float, at_s: float
    ) -> None:
        """One request was answered at `at_s` of Unix time, `total_s` after its last byte."""
        number = int(at_s * 1e6)
        if number <= self._last:
            number = self._last + 1
        self._last = number
        answers = self._answers.get(request.model)
        if answers is None:
            self._forget()
            answers = self._answers[request.model] = deque(maxlen=_MOST_ANSWERS)
        # Not one of `_Kept`, which takes three times as long to make.
        answers.append(
            (
                number,
                at_s,
                request.model,
                OK,
                response.decision,
                request.constraints,
                request.origin.tenant,
                request.origin.protocol,
                total_s,
                response.told.bound_ms,
                response.cost_usd_per_million,
                "",
            )
        )

    def failed(
        self,
        model: str,
        error: GearshiftError,
        total_s: float,
        origin: Origin,
        request: InferRequest | None,
        at_s: float,
    ) -> None:
        """One request ended without an answer."""
        self._last = number = max(self._last + 1, int(at_s * 1e6))
        key = model if self._known(model) else "", error.code
        failures = self._failures.get(key)
        if failures is None:
            self._forget()
            failures = self._failures[key] = deque(maxlen=_MOST_OF_A_FAILURE)
        failures.append(
            _Kept(
                number,
                at_s,
                key[0],
                error.code,
                error.decision,
                NONE if request is None else request.constraints,
                origin.tenant,
                origin.protocol,
                total_s,
                0.0,
                0.0,
                safe_detail(error),
            )
        )

    def now(self) -> int:
        """A number above those of all that is kept, and below those of all that comes."""
        self._last = max(self._last + 1, int(time.time() * 1e6))
        return self._last

    def since(
        self,
        number: int,
        names: Callable[[str], Collection[str]],
        limit: int,
        *,
        model: str | None = None,
        outcome: str | None = None,
    ) -> list[dict[str, Any]]:
        """Those with a number above that one, the newest first, as plain JSON values.

        Args:
            names: the variants of a model and their aliases; a request may have asked for others.
            limit: so many at most.
            model: of this model alone.
            outcome: with this one alone: `OK`, or an error's code.
        """
        found = [
            kept
            for (of, ended), some in self._every()
            if model in (None, of) and outcome in (None, ended)
            for kept in some
            if kept[0] > number
        ]
        found.sort(key=itemgetter(0), reverse=True)
        return [_shown(_Kept._make(kept), names) for kept in found[:limit]]

    def outcomes(self, model: str | None = None) -> list[str]:
        """Those of which some are kept: of this model, or of any."""
        return sorted({ended for (of, ended), _ in self._every() if model in (None, of)})

    def _every(self) -> Iterator[tuple[tuple[str, str], Iterable[tuple[Any, ...]]]]:
        for model, answers in self._answers.items():
            yield (model, OK), answers
        yield from self._failures.items()

    def _forget(self) -> None:
        """Drop what is kept of models that are gone: names may come and go for ever."""
        for model in [each for each in self._answers if not self._known(each)]:
            del self._answers[model]
        for key in [key for key in self._failures if key[0] and not self._known(key[0])]:
            del self._failures[key]


def stated(constraints: Constraints) -> dict[str, Any]:
    """What these constraints demand, by its key in `parameters`, as plain JSON values."""
    body: dict[str, Any] = {}
    for key in KEYS:
        value = getattr(constraints, key)
        if value in (None, ()) or (key == "priority" and value == NONE.priority):
            continue
        if isinstance(value, Floor):
            value = str(value) if value.relative else value.value
        body[key] = ",".join(value) if key == "relax" else value
    return body


def safe_detail(error: GearshiftError) -> str:
    """What may be shown of an error to others than its caller: no word that its caller sent."""
    if isinstance(error, _OWN_WORDS):
        return error.detail
    if isinstance(error, InvalidRequest):
        field = str(error.members.get("field", ""))
        return f"{error.title}: {field}" if _FIELD.fullmatch(field) else error.title
    return error.title


def _shown(kept: _Kept, names: Callable[[str], Collection[str]]) -> dict[str, Any]:
    decision = kept.decision
    asked = stated(kept.constraints)
    if asked.get("variant") not in (None, *names(kept.model)):
        asked["variant"] = "unknown"
    body: dict[str, Any] = {
        "id": kept.id,
        "at_ms": round(kept.at_s * 1000),
        "model": kept.model,
        "outcome": kept.outcome,
        "variant": None,
        "reason": None,
        "why": kept.detail,
        "latency_ms": round(kept.total_s * 1000, 3),
        "predicted_ms": None,
        "accuracy": None,
        "cost_usd_per_million": None,
        "constraints": asked,
        "relaxed": [],
        "refused": [],
        "tenant": kept.tenant,
        "protocol": kept.protocol,
        "error": None,
    }
    if decision is not None:
        body["refused"] = [refusal.as_json() for refusal in decision.refused]
    if kept.outcome != OK:
        body["error"] = {"code": kept.outcome, "detail": kept.detail}
    elif decision is not None:
        body |= {
            "variant": decision.variant,
            "reason": decision.reason,
            "why": decision.why,
            "predicted_ms": round(kept.bound_ms, 3),
            "accuracy": decision.accuracy,
            "cost_usd_per_million": kept.usd_per_million,
            "relaxed": list(decision.relaxed),
        }
    return body
