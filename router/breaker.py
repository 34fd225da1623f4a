"""The breaker: when a variant that fails is left alone, and when it is tried again.

    closed ──── failures in a row, or too great a share of the last batches ───> open
    closed ──── it hangs, or takes its lane down while it is loaded ───> open
    open ────── the backoff is over ───> half-open
    half-open ─ a batch of it succeeds ───> closed
    half-open ─ a batch of it fails ───> open, for twice as long

One breaker a variant, so that the others serve meanwhile; and it opens for a model's only variant
as well, whose callers are better told when to come back than made to wait for another failure
(litellm #40405 never tripped with one backend). Half-open lets one batch through at a time: a
variant that hangs must not take every lane at once.

Three outcomes, as in Netflix's concurrency-limits: success, failure, and those that say nothing of
the variant, such as a request that fails wherever it runs; these teach nothing. A backoff starts
anew only when the variant has served as long as the longest backoff, so one that fails again and
again is tried ever less often.

Time is monotonic and an argument: by a wall clock that was set back, a suppression of 105 errors
made 1,765.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Outcome = Literal["success", "failure", "fatal", "none"]
State = Literal["closed", "open", "half-open"]

STATES: tuple[State, ...] = ("closed", "half-open", "open")

_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Terms:
    """When a breaker opens, and for how long.

    Attributes:
        failures: batches in a row that open it.
        share: of the last `window` batches, when at least half as many are known; that many
            failures open it too.
        first_s, longest_s: the backoff, which doubles from one to the other.
    """

    failures: int = 3
    share: float = 0.5
    window: int = 20
    first_s: float = 1.0
    longest_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """One variant's.

    Attributes:
        recent: its last batches since one failed, oldest first: whether each failed.
        failures: how many of them failed in a row, up to now.
        opened: how often it opened since it last served for long.
        since_s: when it opened or closed.
        until_s: when an open one becomes half-open.
        probed: whether a batch of a half-open one runs.
    """

    state: State = "closed"
    recent: tuple[bool, ...] = ()
    failures: int = 0
    opened: int = 0
    since_s: float = 0.0
    until_s: float = 0.0
    probed: bool = False

    def after(self, outcome: Outcome, now_s: float, terms: Terms) -> Breaker:
        """What it is once a batch ended so.

        One that was taken before it opened may still end when it is open: a failure then says
        nothing new, and a success closes nothing that a probe has not tried.
        """
        if self.state == "open":
            return self
        if outcome == "none":
            return replace(self, probed=False)
        if self.state == "half-open":
            if outcome == "success":
                return Breaker(opened=self.opened, since_s=now_s)
            return self._open(now_s, terms)
        failed = outcome != "success"
        changed = replace(
            self,
            recent=(*self.recent, failed)[-terms.window :],
            failures=self.failures + 1 if failed else 0,
        )
        share = sum(changed.recent) / len(changed.recent)
        if failed and (
            outcome == "fatal"
            or changed.failures >= terms.failures
            or (len(changed.recent) * 2 >= terms.window and share >= terms.share)
        ):
            return changed._open(now_s, terms)
        return changed

    def at(self, now_s: float) -> Breaker:
        """What it is at this time, with nothing else happening."""
        if self.state == "open" and now_s >= self.until_s:
            return replace(self, state="half-open", probed=False)
        return self

    def forgotten(self, now_s: float, terms: Terms) -> bool:
        """Whether it is as good as new: whole, and nothing to remember."""
        return (
            self.state == "closed"
            and not any(self.recent)
            and (not self.opened or now_s - self.since_s > terms.longest_s)
        )

    def _open(self, now_s: float, terms: Terms) -> Breaker:
        served_long = self.state == "closed" and now_s - self.since_s > terms.longest_s
        opened = 1 if served_long else self.opened + 1
        # No power beyond the longest: a float has an end.
        backoff_s = min(terms.longest_s, terms.first_s * 2 ** min(opened - 1, 60))
        return Breaker("open", opened=opened, since_s=now_s, until_s=now_s + backoff_s)


class Breakers:
    """Those of every model that are not as good as new. A variant without one is closed.

    Not thread-safe: the scheduler's owner holds its lock.
    """

    def __init__(self, terms: Terms | None = None) -> None:
        self.terms = terms or Terms()
        self._known: dict[str, dict[str, Breaker]] = {}

    def __bool__(self) -> bool:
        """Whether there is any: nothing need be looked up where there is none."""
        return bool(self._known)

    def of(self, model: str, variant: str, now_s: float) -> Breaker:
        """The breaker of a variant."""
        return self._known.get(model, {}).get(variant, Breaker()).at(now_s)

    def shut_out(self, model: str, now_s: float) -> frozenset[str]:
        """The variants that no request may be routed to."""
        known = self._known.get(model)
        if known is None:
            return _NOBODY
        return frozenset(v for v, breaker in known.items() if breaker.at(now_s).state == "open")

    def probed(self, model: str, now_s: float) -> frozenset[str]:
        """The variants that one lane tries, and for which no other lane may run a batch."""
        known = self._known.get(model)
        if known is None:
            return _NOBODY
        return frozenset(v for v, breaker in known.items() if breaker.at(now_s).probed)

    def report(self, now_s: float) -> dict[str, str]:
        """The state of those that are not closed, by MODEL/VARIANT."""
        found = {
            f"{model}/{variant}": breaker.at(now_s).state
            for model, known in self._known.items()
            for variant, breaker in known.items()
        }
        return {name: state for name, state in found.items() if state != "closed"}

    def retry_after_s(self, model: str, variants: Iterable[str], now_s: float) -> float | None:
        """How long until the first of `variants` that is shut out is tried again."""
        known = self._known.get(model, {})
        left = [
            known[variant].until_s - now_s
            for variant in variants
            if variant in known and known[variant].at(now_s).state == "open"
        ]
        return min(left, default=None)

    def taken(self, model: str, variant: str, now_s: float) -> None:
        """A lane starts a batch of `variant`."""
        breaker = self._known.get(model, {}).get(variant)
        if breaker is not None and (breaker := breaker.at(now_s)).state == "half-open":
            self._known[model][variant] = replace(breaker, probed=True)

    def ended(self, model: str, variant: str, outcome: Outcome, now_s: float) -> bool:
        """A batch of `variant` ended; whether its breaker opened."""
        known = self._known.get(model, {})
        breaker = known.get(variant)
        if breaker is None:
            if outcome in ("success", "none"):
                return False
            breaker = Breaker(since_s=-self.terms.longest_s)
        before = breaker.at(now_s)
        after = before.after(outcome, now_s, self.terms)
        if after.forgotten(now_s, self.terms):
            self.forget(model, variant)
        else:
            self._known.setdefault(model, {})[variant] = after
        return after.state == "open" and before.state != "open"

    def forget(self, model: str, variant: str) -> None:
        """Another build takes the variant's name, or none does."""
        known = self._known.get(model)
        if known is not None:
            known.pop(variant, None)
            if not known:
                del self._known[model]
