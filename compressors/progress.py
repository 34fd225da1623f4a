"""Progress of a build: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Advance = Callable[[float, str], None]

_LINE_EVERY_S = 10.0  # a plain log is read later: often enough to see life, seldom enough to read
_TICK_S = 0.2


def within(advance: Advance, begin: float, end: float) -> Advance:
    """The part of a step from the fraction `begin` to `end`, as a step of its own."""
    return lambda fraction, text: advance(begin + (end - begin) * fraction, text)


@contextmanager
def ticking(advance: Advance, expected_s: float, text: str) -> Iterator[None]:
    """Move on by the clock while something runs that tells nothing of itself, such as a compiler:
    two thirds of the way in `expected_s`, slower from there, and never to the end."""
    over = threading.Event()

    def tick() -> None:
        begun = time.monotonic()
        while not over.wait(_TICK_S):
            advance(1 - math.exp(-(time.monotonic() - begun) / expected_s), text)

    advance(0.0, text)
    clock = threading.Thread(target=tick, name="progress", daemon=True)
    clock.start()
    try:
        yield
    finally:
        over.set()
        clock.join()


class Reporter(Protocol):
    """What a build tells."""

    def say(self, line: str) -> None:
        """One finished fact."""

    def stage(self, title: str) -> Advance:
        """A long step begins and takes the last one's place. Call what comes back with (fraction
        done, from 0 to 1, and what is being done)."""


class Silent:
    """Tells nothing."""

    def say(self, line: str) -> None: ...

    def stage(self, title: str) -> Advance:  # noqa: ARG002
        return lambda _fraction, _text: None


class Lines:
    """Plain lines for logs: what begins, and how far it is every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def stage(self, title: str) -> Advance:
        self.say(title)
        begun = last = time.monotonic()

        def advance(fraction: float, text: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _LINE_EVERY_S and 0 < fraction < 1:
                last = now
                left = (now - begun) * (1 - fraction) / fraction
                self.say(f"{title}: {text}, {fraction:.0%}, about {left:.0f} s left")

        return advance


class Bars:
    """One live bar for the step that runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._current = progress.add_task("", total=1.0, text="", visible=False)

    def say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def stage(self, title: str) -> Advance:
        self._progress.remove_task(self._current)
        current = self._progress.add_task(title, total=1.0, text="")
        self._current = current

        def advance(fraction: float, text: str) -> None:
            self._progress.update(current, completed=min(1.0, fraction), text=text)

        return advance


@contextmanager
def reporter(console: Console) -> Iterator[Reporter]:
    """Bars where `console` is a terminal, lines where it is not."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[text]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)
