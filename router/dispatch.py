"""dispatch(): what a lane that has come free should run, decided now that the slack is known.

A request that optimises cost waits for company while its deadline allows.

The plan says what lane time is worth now. The head of the queue, the request with the least time
left, takes its best choice at that price that still makes its deadline. Others of the same model
join the batch where the same variant is among their choices, is worth as much to them as their own
choice less what riding along saves, and the longer batch still makes every member's deadline: so
nobody is late, or is answered less well, for company's sake. A request that cannot make its
deadline by any choice, even at the median, is not run.

Scarcity is met in the order that a caller would want: first accuracy gives way, within each
request's own choices, as the price rises; when no price suffices, those of the lowest priority
are shed, and among them those of the model that has had more than its share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from router.joining import joined
from router.menu import Offer
from router.pace import Pace
from router.plan import Plan, plan
from router.queue import RANKS, Expected, Waiting

# How far behind the head a batch is filled from. Further back lie requests with more time to
# spare; looking at all of a long queue would cost more than the batch saves.
REACH = 256
# A batch takes at most this share of the tightest deadline that keeps arriving: a request that
# finds every lane busy has to wait for one of them, and then takes its own time.
BRIEF = 0.5
# A request that is held for company runs by so much before it has to, at least.
_WAKES_MS = 2.0
# How long nobody looks whether company is still likely.
_LOOK_S = 0.1
# Rows that must be likely to come for a request to be held for their company: one might be the
# caller's own next.
COMPANY = 2


@dataclass(frozen=True, slots=True)
class Moment:
    """What is true when a lane comes free.

    Attributes:
        lane_free_in_ms: for every lane, time until its running batch ends; 0 when idle, as this
            one is.
        paces: by model; a request of a model that is absent expires.
        expected: what keeps arriving.
        max_batch: rows of a batch, at most; a single request may have more and runs alone.
        overhead_ms: what it takes to bring an answer from the lane to its caller.
        weights: of the lanes' time, by model, when there is not enough for all.
        price: what lane time was worth lately; see `plan`.
        used_ms: lane time that each model had lately, by its weight.
        caution: see `plan`.
    """

    now_s: float
    lane_free_in_ms: tuple[float, ...]
    paces: Mapping[str, Pace]
    expected: Sequence[Expected] = ()
    max_batch: int = 32
    overhead_ms: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    price: float = 0.0
    used_ms: Mapping[str, float] = field(default_factory=dict)
    caution: float = 0.0

    def slack_ms(self, waiting: Waiting) -> float:
        """Lane time left until an answer must start on its way; infinite without a deadline."""
        return (waiting.deadline_s - self.now_s) * 1000 - self.overhead_ms


@dataclass(frozen=True, slots=True)
class Assignment:
    """One batch for a lane: run `members` on `variant`; `promised_ms` is how long it should take.

    `members` is empty, and `variant` too, when there is nothing to run. `expired` can no longer
    make their deadline and leave the queue unrun. Where `wait_until_s` is later than now there is
    nothing to run before then unless something arrives.
    """

    model: str = ""
    variant: str = ""
    members: tuple[Waiting, ...] = ()
    expired: tuple[Waiting, ...] = ()
    promised_ms: float = 0.0
    plan: Plan | None = None
    wait_until_s: float = 0.0

    @property
    def offer(self) -> Offer:
        """What `members`, of which there are some, were promised: that build of the variant."""
        return next(o for o in self.members[0].choices.offers if o.name == self.variant)


def dispatch(queue: Sequence[Waiting], moment: Moment) -> Assignment:
    """The batch for a lane that is free now.

    Args:
        queue: every queued request, sorted.
    """
    expired: list[Waiting] = []
    for head in queue:
        pace = moment.paces.get(head.choices.model)
        if pace is not None and can_answer(head, moment, pace):
            break
        expired.append(head)
    left = queue[len(expired) :] if expired else queue
    if not left:
        return Assignment(expired=tuple(expired))
    outlook = plan(
        left,
        moment.expected,
        moment.now_s,
        moment.lane_free_in_ms,
        moment.paces,
        reserve_ms=moment.overhead_ms,
        weights=moment.weights,
        hint=moment.price,
        caution=moment.caution,
    )
    reachable = left[: REACH + moment.max_batch]
    at = 0
    if outlook.crowded:
        if outlook.over and len(left) > len(reachable):
            reachable = [*reachable, *_behind(left, len(reachable), moment, outlook)]
        reachable = _by_turn(reachable, moment, outlook)
        at = _worthwhile(reachable, moment, outlook)
    elif head.choices.thrifty:
        at, wait_until_s = _hurried(reachable, moment)
        if wait_until_s > moment.now_s and len(left) == len(reachable):
            return Assignment(expired=tuple(expired), plan=outlook, wait_until_s=wait_until_s)
    head = reachable[at]
    others = [*reachable[:at], *reachable[at + 1 :]] if at else reachable[1:]
    pace = moment.paces[head.choices.model]
    price = outlook.prices[head.choices.model]
    offer = choose(head, moment, pace, price)
    assert offer is not None
    idle = sum([free <= 0 for free in moment.lane_free_in_ms])
    room = max(head.rows, min(moment.max_batch, _brief(offer, moment, pace)))
    if idle > 1:
        room = min(room, max(-(-len(left) // idle), head.rows))
    members, promised_ms = joined(
        head, offer, others, pace, price, room, moment.now_s, moment.overhead_ms
    )
    return Assignment(
        model=head.choices.model,
        variant=offer.name,
        members=tuple(members),
        expired=tuple(expired),
        promised_ms=promised_ms,
        plan=outlook,
    )


def _hurried(reachable: Sequence[Waiting], moment: Moment) -> tuple[int, float]:
    """The first request that would rather run than wait for company, and until when to wait.

    A request that optimises cost pays its share of the batch, so it waits as long as a full batch
    still makes its deadline, where company is likely to come by then. Several that fill a batch
    have company enough.
    """
    if sum([waiting.rows for waiting in reachable]) >= moment.max_batch:
        return 0, 0.0
    until_s = math.inf
    for at, waiting in enumerate(reachable):
        pace = moment.paces.get(waiting.choices.model)
        if pace is None or not can_answer(waiting, moment, pace):
            continue
        hold_s = _hold_s(waiting, moment, pace)
        if hold_s <= moment.now_s:
            return at, 0.0
        until_s = min(until_s, hold_s)
    # By then it may be known that nobody comes.
    return 0, min(until_s, moment.now_s + _LOOK_S)


def _hold_s(waiting: Waiting, moment: Moment, pace: Pace) -> float:
    """Until when to hold one request; 0 when it would rather run."""
    choices = waiting.choices
    if not choices.thrifty or waiting.deadline_s == math.inf:
        return 0.0
    offer = pace.tariff(choices).offers[0]
    rows = max(waiting.rows, offer.efficient_rows)
    # Once for its own batch, once for the one that may run when the time has come; and a lane does
    # not wake on the dot.
    until_ms = max(_WAKES_MS, 2 * pace.promised_ms(offer, rows))
    # Who has a long deadline wants an answer sooner all the same.
    due_ms = (waiting.due_s - moment.now_s) * 1000 - moment.overhead_ms
    window_ms = min(moment.slack_ms(waiting), due_ms) - until_ms
    coming = sum([k.rows_per_ms for k in moment.expected if k.choices.model == choices.model])
    return moment.now_s + window_ms / 1000 if coming * window_ms >= COMPANY else 0.0


def _behind(
    left: Sequence[Waiting], reach: int, moment: Moment, outlook: Plan
) -> Iterable[Waiting]:
    """A batch's worth of models within their share, from behind those that flood the queue."""
    within = (
        left[at]
        for at in range(reach, len(left))
        if left[at].choices.menu.model not in outlook.over
    )
    return islice(within, moment.max_batch)


def _by_turn(reachable: Sequence[Waiting], moment: Moment, outlook: Plan) -> Sequence[Waiting]:
    """`reachable` in the order in which requests are served when there is not time for all.

    By priority; models within their share before those that want more, and of these the one that
    had the least of its share lately. Who has no deadline and is overdue waits no longer.
    """
    if not outlook.over and len({waiting.priority for waiting in reachable}) == 1:
        return reachable
    now_s = moment.now_s
    had_ms = {model: moment.used_ms.get(model, 0.0) for model in outlook.over}

    def turn(waiting: Waiting) -> tuple[int, float]:
        if waiting.deadline_s == math.inf and waiting.due_s <= now_s:
            return 0, -1.0
        return RANKS[waiting.priority], had_ms.get(waiting.choices.menu.model, -1.0)

    return sorted(reachable, key=turn)


def _worthwhile(by_turn: Sequence[Waiting], moment: Moment, outlook: Plan) -> int:
    """Index of the request that should head the batch when not everybody can be served.

    The first that has time for a batch of some efficiency: lanes that run behind with requests that
    are only just in time run them in twos and threes, and lose the most.
    """
    first: int | None = None
    for at, waiting in enumerate(by_turn):
        model = waiting.choices.model
        pace = moment.paces.get(model)
        offer = None if pace is None else choose(waiting, moment, pace, outlook.prices[model])
        if pace is None or offer is None:
            continue
        if first is None:
            first = at
        if waiting.soft or moment.slack_ms(waiting) >= pace.promised_ms(offer, offer.decent_rows):
            return at
    assert first is not None
    return first


def _brief(offer: Offer, moment: Moment, pace: Pace) -> int:
    """Rows of the largest batch that does not keep a lane too long from what is likely to come."""
    tightest_ms = min([kind.within_ms for kind in moment.expected], default=math.inf)
    # More rows that take no longer than one keep nobody waiting.
    return pace.rows_within(offer, max(tightest_ms * BRIEF, pace.promised_ms(offer, 1)))


def can_answer(waiting: Waiting, moment: Moment, pace: Pace) -> bool:
    """Whether any choice still makes the deadline, at the median."""
    if waiting.soft or waiting.deadline_s == math.inf:
        return any(offer.name in pace.ready for offer in waiting.choices.offers)
    slack_ms = moment.slack_ms(waiting)
    return any(
        pace.typical_ms(offer, waiting.rows) <= slack_ms
        for offer in reversed(waiting.choices.offers)
        if offer.name in pace.ready
    )


def choose(waiting: Waiting, moment: Moment, pace: Pace, price: float) -> Offer | None:
    """The best choice at `price` that still makes the deadline; None when none can.

    The promised percentile decides. When no choice makes it at that percentile, the fastest runs
    if it makes it at the median: late odds are better than none, and it is the caller's time.
    """
    slack_ms = moment.slack_ms(waiting)
    tariff = pace.tariff(waiting.choices)
    if not tariff.offers:
        return None
    offers = tariff.offers[tariff.at(price) :]
    for offer in offers:
        if pace.promised_ms(offer, waiting.rows) <= slack_ms:
            return offer
    ready = [offer for offer in waiting.choices.offers if offer.name in pace.ready]
    fastest = min(ready, key=lambda offer: pace.typical_ms(offer, waiting.rows))
    if waiting.soft or pace.typical_ms(fastest, waiting.rows) <= slack_ms:
        return fastest
    return None
