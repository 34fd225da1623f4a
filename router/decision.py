"""The decision: the variant chosen, those refused and why, what was relaxed; as values and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from router.constraints import Floor, Relaxable

if TYPE_CHECKING:
    from router.choices import Choices

Verdict = Literal["accepted", "unsatisfiable", "overloaded", "not-ready"]

Reason = Literal[
    "pinned",
    "canary",
    "most-accurate",
    "cheapest-equal",
    "cheapest",
    "fastest",
    "under-load",
    "relaxed",
    "assigned",
    "shifted-at-dispatch",
    "retried",
]

Constraint = Literal["max_latency_ms", "min_accuracy", "max_cost_usd_per_million"]


class Refusal(NamedTuple):
    """Why one variant may not answer: the constraint, what was asked and what it offers.

    `constraint` is also "variant" for one that is not the pinned one, "ready" for one that is not
    loaded and healthy and "canary" for one that is on trial; those offer and ask nothing.
    """

    variant: str
    constraint: Constraint | Literal["variant", "ready", "canary"]
    asked: float | Floor | None = None
    offered: float | Floor | None = None

    def __str__(self) -> str:
        if self.constraint == "variant":
            return f"{self.variant}: another variant is pinned"
        if self.constraint == "ready":
            return f"{self.variant}: not loaded and healthy"
        if self.constraint == "canary":
            return f"{self.variant}: a canary, which gets its share of the requests alone"
        return f"{self.variant}: {self.constraint} {self.asked} asked, {self.offered} offered"

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values; a relative floor is its text, such as "99%"."""
        body: dict[str, Any] = {"variant": self.variant, "constraint": self.constraint}
        for key, value in (("asked", self.asked), ("offered", self.offered)):
            if isinstance(value, Floor):
                body[key] = str(value) if value.relative else value.value
            elif value is not None:
                body[key] = value
        return body | {"text": str(self)}


@dataclass(frozen=True, slots=True)
class Nearest:
    """Values that would fit, for the same request at the same moment.

    Attributes:
        alone: for each constraint that could be changed alone, the nearest value that would fit.
        together: when none suffices alone, values that fit when all of them are changed.
    """

    alone: tuple[tuple[str, str], ...] = ()
    together: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.alone:
            return " or ".join(f"{name} {value}" for name, value in self.alone)
        return " with ".join(f"{name} {value}" for name, value in self.together)


class Decision(NamedTuple):
    """What `route` decided, and why.

    Attributes:
        verdict: "accepted"; "unsatisfiable" when no variant meets the constraints, ever;
            "overloaded" when one does, but not now; "not-ready" when those that might are not
            loaded and healthy.
        variant: what answers; empty unless accepted.
        reason, why: a word of a small set, and a sentence.
        allowed: variants that meet every constraint, best first by the objective; when accepted,
            the first is `variant`.
        refused: why each other one does not, one entry for each constraint that it breaks.
        predicted_latency_ms: what the answer stays within at the promised percentile.
        estimate_ms: the same before what was learnt of how far such estimates err; 0 where it is
            the deadline that says how long it may take, as from which nothing is learnt.
        queued: whether it has to wait for a lane.
        relaxed: constraints that gave way.
        choices: what may answer in its place, by the slack that is left when a lane comes free.
        retry_after_ms: when overloaded, the time until it should fit.
    """

    model: str
    verdict: Verdict
    objective: str
    variant: str = ""
    reason: Reason = "most-accurate"
    why: str = ""
    predicted_latency_ms: float = 0.0
    estimate_ms: float = 0.0
    queued: bool = False
    accuracy: float = 0.0
    cost_usd_per_million: float = 0.0
    allowed: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    relaxed: tuple[Relaxable, ...] = ()
    nearest: Nearest = Nearest()
    retry_after_ms: float = 0.0
    choices: Choices | None = None

    def as_json(self) -> dict[str, Any]:
        """The whole decision as plain JSON values; units are in the names."""
        body: dict[str, Any] = {
            "model": self.model,
            "verdict": self.verdict,
            "objective": self.objective,
            "refused": [refusal.as_json() for refusal in self.refused],
        }
        if self.verdict == "accepted":
            body |= {
                "variant": self.variant,
                "reason": self.reason,
                "why": self.why,
                "predicted_latency_ms": round(self.predicted_latency_ms, 3),
                "accuracy": self.accuracy,
                "cost_usd_per_million": self.cost_usd_per_million,
                "allowed": list(self.allowed),
                "relaxed": list(self.relaxed),
            }
        else:
            body |= {"why": self.why} | nearest_json(self.nearest)
        return body


def nearest_json(nearest: Nearest) -> dict[str, Any]:
    """`nearest` as JSON: values as a client would send them back."""
    body: dict[str, Any] = {}
    if nearest.alone:
        body["nearest"] = {name: _value(value) for name, value in nearest.alone}
    if nearest.together:
        body["nearest_together"] = {name: _value(value) for name, value in nearest.together}
    return body


def _value(text: str) -> float | str:
    return text if text.endswith("%") else float(text)
