"""The end of the server: one deadline for everything that waits for something at the end.

From the signal on the process has `drain_seconds`. Most of them are for the requests; the rest is
for what comes after: lanes, listeners, the ledger. Each waits for no longer than is left, and what
hangs all the same (an engine in its own code, a database) does not keep the process: it ends on
time without that.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

_LOG = logging.getLogger(__name__)

# Of the time, and at most, what the steps after the last request are left with.
_RESERVE = 0.2
_RESERVE_S = 1.0
# A process that was given no time at all still closes what it can.
_LEAST_S = 2.0
_TOO_LATE = 1


class Ending:
    """When the process was told to end, and how long that may still take.

    Args:
        patience_s: how long in all.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._whole_s = max(_LEAST_S, patience_s)
        self._began_s: float | None = None

    @property
    def begun(self) -> bool:
        """Whether the process was told to end."""
        return self._began_s is not None

    @property
    def requests_s(self) -> float:
        """How long requests may take after it was told."""
        return self._patience_s - min(_RESERVE_S, _RESERVE * self._patience_s)

    def left_s(self) -> float:
        """How much is left for requests; all of it while the process was not told."""
        return max(0.0, self.requests_s - self._gone_s())

    def step_s(self) -> float:
        """How long one of the steps after the last request may take: half of what is left."""
        return max(0.0, self._whole_s - self._gone_s()) / 2

    def begin(self) -> None:
        """The process was told to end; the first time counts. May be called by a signal handler."""
        if self._began_s is not None:
            return
        self._began_s = time.monotonic()
        watch = threading.Timer(self._whole_s, _end)
        watch.daemon = True
        watch.start()

    def _gone_s(self) -> float:
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s


def _end() -> None:
    _LOG.error("the process did not end in time; it ends now")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(_TOO_LATE)
