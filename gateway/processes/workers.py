"""The supervisor of `gearshift serve --workers N`: N processes that serve one port.

Each worker is a whole server with cores of its own, its own queue, lanes and variants; the kernel
spreads connections over them (SO_REUSEPORT). The supervisor serves nothing. It starts each worker,
starts it again when it ends (when, says `router.supervision`), passes on SIGHUP, and on SIGTERM or
SIGINT has all of them drain. One thread and one `select`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.logs.setup import reopen
from gateway.processes import cores, notify, ports
from gateway.processes.worker import OPEN, Order
from gateway.processes.worker_process import WorkerProcess
from gateway.settings import Settings, SettingsError
from router.supervision import GiveUp, Open, Start, Wait, Worker, next_action

_LOG = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How much longer than it promised a worker may take to end.
_GRACE_S = 5.0
# The path of a socket holds 107 bytes, its name and the folder's own among them.
_LONGEST_TEMPORARY = 60
# Exit codes with which a worker says that no worker can start: as those of `gearshift serve`.
_HOPELESS = (1, 2)


class Supervisor:
    """Starts the workers and keeps them running.

    Args:
        chosen: the settings; `workers` says how many.
        options: those of the command line, by name.
        say: prints a line to the operator.

    Raises:
        SettingsError: there are fewer cores than workers.
        gateway.processes.ports.PortUnusable: a port cannot be had.
    """

    def __init__(
        self,
        chosen: Settings,
        options: Mapping[str, Any],
        config: Path | None,
        log_level: str,
        say: Callable[[str], None],
    ) -> None:
        try:
            self._shares = cores.divide(chosen.workers)
        except ValueError as error:
            raise SettingsError(f"workers: expected {error}, got {chosen.workers}") from error
        self._chosen = chosen
        self._reserved = _reserve(chosen)
        self._options = {k: v for k, v in options.items() if v is not None}
        self._options |= {name: str(one.getsockname()[1]) for name, one in self._reserved.items()}
        self._config = config
        self._log_level = log_level
        self._say = say
        self._said: set[str] = set()
        self._workers: dict[int, Worker] = {}
        self._processes: dict[int, WorkerProcess] = {}
        self._starts: dict[int, int] = {}
        self._ready: dict[int, bool] = {}
        self._announced = False
        self._stops = 0
        self._kill_s: float | None = None
        self._hopeless: int | None = None

    def run(self) -> int:
        """Run until a signal ends it; the exit code.

        0 when every worker ended well, 1 when one had to be killed or none could be kept running,
        or the code of the first worker where no worker can start.
        """
        secured = self._chosen.tls_certificate is not None
        url = ports.url_of(self._chosen.host, self._reserved["port"], tls=secured)
        long = len(tempfile.gettempdir()) > _LONGEST_TEMPORARY
        self._folder = Path(
            tempfile.mkdtemp(prefix=f"gearshift-{os.getpid()}-", dir="/tmp" if long else None)
        )
        with selectors.DefaultSelector() as self._select, self._signals():
            try:
                # The others start when the first has found nothing that keeps all from starting.
                self._workers[0] = Worker(0)
                return self._supervise(url)
            finally:
                for process in self._processes.values():
                    process.signal(signal.SIGKILL)
                for reserved in self._reserved.values():
                    reserved.close()
                shutil.rmtree(self._folder, ignore_errors=True)

    def _supervise(self, url: str) -> int:
        clean = True
        while True:
            now_s = time.monotonic()
            if not self._stops:
                until_s = self._act(now_s)
                if until_s is None:
                    _LOG.error("no worker can be kept running; giving up")
                    clean = False
                    self._stop()
                self._announce(url)
            if self._stops:
                if not self._processes:
                    return self._hopeless if self._hopeless is not None else int(not clean)
                until_s = self._kill_s
                if until_s is not None and now_s >= until_s:
                    clean = False
                    self._kill()
                    until_s = None
            self._listen(None if until_s is None else max(0.0, until_s - now_s))
            clean = self._bury() and clean

    def _act(self, now_s: float) -> float | None:
        """Do what there is to do; returns until when there is nothing, None to give up."""
        while True:
            match next_action(tuple(self._workers.values()), now_s):
                case Start(number):
                    self._start(number)
                    self._workers[number] = self._workers[number].started(now_s)
                case Open(number):
                    self._processes[number].tell(OPEN)
                    self._workers[number] = self._workers[number].opened()
                case GiveUp():
                    return None
                case Wait(until_s):
                    return min(until_s, now_s + 3600)

    def _start(self, number: int) -> None:
        share = self._shares[number]
        lanes = max(1, share.usable // self._chosen.threads_per_lane)
        restarts = self._starts.get(number, 0)
        self._starts[number] = restarts + 1
        order = Order(
            number=number,
            count=self._chosen.workers,
            restarts=restarts,
            folder=self._folder,
            options=(
                self._options
                if "lanes" in self._chosen.model_fields_set
                else {**self._options, "lanes": str(lanes)}
            ),
            config=self._config,
            log_level=self._log_level,
        )
        process = self._processes[number] = WorkerProcess(order, share)
        for source in (process.link, process.stdout):
            self._select.register(source, selectors.EVENT_READ, number)

    def _listen(self, timeout_s: float | None) -> None:
        for key, _ in self._select.select(timeout_s):
            if key.data is None:
                self._signalled(os.read(key.fd, 1024))
                continue
            number: int = key.data
            process = self._processes[number]
            lines = process.lines(key.fd)
            if not lines and process.code() is not None:
                self._select.unregister(key.fileobj)
            for line in lines:
                if key.fileobj is process.link:
                    self._told(number, json.loads(line))
                elif line not in self._said:
                    # Each says the same of the store and of the ports: once is enough.
                    self._said.add(line)
                    self._say(line)

    def _told(self, number: int, event: Mapping[str, bool]) -> None:
        if event.get("listening"):
            for other in range(self._chosen.workers):
                self._workers.setdefault(other, Worker(other))
        if event.get("settled"):
            self._ready[number] = event["ready"]
            self._workers[number] = self._workers[number].settled(time.monotonic())
        if event.get("reload"):
            for other, process in self._processes.items():
                if other != number:
                    process.signal(signal.SIGHUP)

    def _announce(self, url: str) -> None:
        """Say once that all have settled: who waits for that may send requests then."""
        everybody = len(self._ready) == self._chosen.workers
        if everybody and not self._announced:
            self._announced = True
            line = f"{'ready' if all(self._ready.values()) else 'not ready'}: {url}/"
            self._say(line)
            notify.ready(line)

    def _bury(self) -> bool:
        """Let go of the workers that have ended; whether all that did so ended well."""
        well = True
        for number, process in list(self._processes.items()):
            code = process.code()
            if code is None:
                continue
            for source in (process.link, process.stdout):
                with contextlib.suppress(KeyError):
                    self._select.unregister(source)
            for line in process.lines(process.stdout.fileno()):
                if line not in self._said:
                    self._say(line)
            process.close()
            del self._processes[number]
            now_s = time.monotonic()
            self._workers[number] = self._workers[number].ended(now_s, clean=code == 0)
            if self._stops:
                # One that has not come so far as to drain has nothing to.
                well = well and code in (0, -signal.SIGTERM)
            elif len(self._workers) == 1 < self._chosen.workers and code in _HOPELESS:
                self._hopeless = code  # it has said why
                self._stop()
            else:
                again_s = self._workers[number].due_s - now_s
                if code == 0 and not again_s:
                    _LOG.warning("worker %d was told to end, and did; it starts again", number)
                    continue
                _LOG.error(
                    "worker %d ended (%s); it starts again in %.1f s", number, _how(code), again_s
                )
        return well

    def _stop(self) -> None:
        self._stops += 1
        notify.stopping()
        if self._stops > 1:  # who asks twice does not want to wait
            self._kill_s = time.monotonic()
            return
        self._kill_s = time.monotonic() + self._chosen.drain_seconds + _GRACE_S
        for process in self._processes.values():
            process.signal(signal.SIGTERM)

    def _kill(self) -> None:
        self._kill_s = None
        for number, process in self._processes.items():
            _LOG.error("worker %d did not end in time; killed", number)
            process.signal(signal.SIGKILL)

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                reopen()
                for process in self._processes.values():
                    process.signal(signal.SIGHUP)
            elif number in _STOP_SIGNALS:
                self._stop()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals, the end of a worker among them, wake the select."""
        heard, woken = socket.socketpair()
        for one in (heard, woken):
            one.setblocking(False)
        self._select.register(heard, selectors.EVENT_READ, None)
        numbers = (*_STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        wakeup = signal.set_wakeup_fd(woken.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            heard.close()
            woken.close()


def _reserve(chosen: Settings) -> dict[str, socket.socket]:
    """Every port that the workers share, bound and not listened on, by the setting that names it.

    So a port in use is told before anything starts, one that was left to the system is the same
    for all, and nobody takes one while a worker is down.
    """
    wanted: dict[str, tuple[str, Any]] = {
        "port": (chosen.host, chosen.port),
        "grpc_port": (chosen.host, chosen.grpc_port),
        "admin_port": (chosen.admin_host, chosen.admin_port),
    }
    reserved: dict[str, socket.socket] = {}
    try:
        for offset, (name, (host, port)) in zip((0, 1, 2), wanted.items(), strict=True):
            if port == "off":
                continue
            if port is None:
                port = chosen.port + offset if chosen.port else 0
            reserved[name] = ports.reserve(host, port)
    except ports.PortUnusable:
        for one in reserved.values():
            one.close()
        raise
    return reserved


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
