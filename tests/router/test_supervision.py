"""Laws of supervision, by every order in which workers can start, settle and end."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from router.supervision import GiveUp, Open, Start, Wait, Worker, next_action

_EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(("settled", "crashed", "left", "wait")),
        st.floats(0, 100, allow_nan=False),
    ),
    max_size=40,
)


class Rig:
    """Workers whose supervisor does at once what it is told to."""

    def __init__(self, count: int) -> None:
        self.workers = {number: Worker(number) for number in range(count)}
        self.now_s = 0.0
        self.given_up = False
        self.starts: list[tuple[int, float]] = []

    def obey(self) -> float:
        """Act until there is nothing to do; returns until when."""
        for _ in range(4 * len(self.workers) + 1):
            match next_action(tuple(self.workers.values()), self.now_s):
                case Start(number):
                    assert self.workers[number].state == "down"
                    assert self.workers[number].due_s <= self.now_s
                    self.starts.append((number, self.now_s))
                    self.workers[number] = self.workers[number].started(self.now_s)
                case Open(number):
                    assert self.workers[number].state != "down"
                    assert not self.workers[number].open
                    self.workers[number] = self.workers[number].opened()
                case GiveUp():
                    self.given_up = True
                    return math.inf
                case Wait(until_s):
                    return until_s
        raise AssertionError("it never comes to rest")

    def happen(self, number: int, event: str, after_s: float) -> None:
        self.now_s += after_s
        worker = self.workers.get(number)
        if worker is None or worker.state == "down" or event == "wait":
            return
        if event == "settled":
            if worker.state == "starting":
                self.workers[number] = worker.settled(self.now_s)
            return
        self.workers[number] = worker.ended(self.now_s, clean=event == "left")


@given(count=st.integers(1, 4), events=_EVENTS)
def test_laws(count: int, events: list[tuple[int, str, float]]) -> None:
    rig = Rig(count)
    until_s = rig.obey()
    for number, event, after_s in events:
        rig.happen(number, event, after_s)
        until_s = rig.obey()
        if rig.given_up:
            break
        running = [each for each in rig.workers.values() if each.state != "down"]
        opened = [each for each in running if each.open]
        # Where anybody runs, somebody answers.
        assert bool(opened) == bool(running)
        # Who is sent requests and refuses them does so alone: nobody beside it would serve them.
        if len(opened) > 1:
            assert all(each.state == "settled" for each in opened)
        # Whoever has settled serves, unless one that opened the port before it has yet to.
        if all(each.state == "settled" for each in opened):
            assert all(each.open for each in running if each.state == "settled")
        # No worker that is down is forgotten.
        down = [each for each in rig.workers.values() if each.state == "down"]
        assert until_s == min((each.due_s for each in down), default=math.inf)
        assert all(rig.now_s < each.due_s <= each.since_s + 30 for each in down)
    for number in range(count):
        times = [at for who, at in rig.starts if who == number]
        assert times == sorted(times)


@given(count=st.integers(1, 4))
def test_all_that_never_settle_are_given_up(count: int) -> None:
    rig = Rig(count)
    starts = 0
    while not rig.given_up:
        rig.now_s = max(rig.now_s, min(rig.obey(), rig.now_s + 60))
        for number, worker in rig.workers.items():
            if worker.state == "starting":
                starts += 1
                rig.happen(number, "crashed", 0.0)
        rig.obey()
        assert starts < 100
    assert starts >= 5 * count


@given(crashes=st.integers(5, 30))
def test_one_that_never_settles_is_tried_for_ever_while_another_serves(crashes: int) -> None:
    rig = Rig(2)
    rig.obey()
    rig.happen(0, "settled", 0.0)
    for _ in range(crashes):
        rig.obey()
        rig.happen(1, "crashed", 0.0)
        rig.now_s = rig.obey()
        assert math.isfinite(rig.now_s)
    assert not rig.given_up
    assert not rig.workers[1].open
    rig.obey()
    assert rig.workers[1].state == "starting"


def test_each_failure_is_followed_by_twice_the_delay_up_to_half_a_minute() -> None:
    worker, delays = Worker(0), []
    for _ in range(12):
        worker = worker.started(0.0).ended(0.0, clean=False)
        delays.append(worker.due_s)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 30


def test_who_has_served_for_a_minute_starts_again_at_once_and_with_a_clean_slate() -> None:
    tried = Worker(0, failures=4).started(0.0)
    assert tried.settled(1.0).ended(61.0, clean=False) == Worker(0, since_s=61.0, due_s=61.0)
    assert tried.settled(1.0).ended(60.9, clean=False).failures == 5


def test_who_was_asked_to_leave_has_not_failed_but_who_left_before_it_served_has() -> None:
    tried = Worker(0, failures=2).started(0.0)
    assert tried.settled(1.0).ended(2.0, clean=True).failures == 0
    assert tried.ended(2.0, clean=True).failures == 3
