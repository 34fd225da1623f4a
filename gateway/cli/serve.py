"""`gearshift serve`: the server as a process, from its settings to a clean end."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from gateway import settings
from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail
from gateway.cli.options import ConfigOption, LogLevelOption, with_settings
from gateway.lifecycle.catalog import StoreUnusable
from gateway.logs.setup import start
from gateway.processes import notify, open_files, ports
from gateway.processes.ending import Ending
from gateway.processes.ports import PortUnusable
from gateway.processes.worker import Place
from gateway.processes.workers import Supervisor
from gateway.settings import Settings, SettingsError
from gateway.trust.ledger import LedgerForbidden

if TYPE_CHECKING:
    from gateway.service import Service


@with_settings()
def serve(
    *, config: ConfigOption = None, log_level: LogLevelOption = "warning", **options: Any
) -> None:
    """Serve every variant of a store behind one endpoint.

    The port opens at once; "ready" is printed when every variant is loaded and warm, or has
    failed, with the reason, or is kept out by the memory limit. A variant that fails keeps no other
    from serving. SIGTERM or Ctrl-C lets running requests finish.

    Each option is also a variable of the environment and a key of the file that --config names:
    --max-queue is GEARSHIFT_MAX_QUEUE and max_queue. Command line > environment > file > default.

    Example: gearshift serve --models models --port 8080 --default-min-accuracy 99%

    Exit code: 0 after a clean end; 1 when the store, its keys, the address or the port cannot be
    used; 2 for a setting that makes no sense.
    """
    chosen = load(options, config)
    if chosen.workers == 1:
        run(chosen, bind(chosen), log_level, read=partial(settings.load, options, config))
        return
    log(chosen, log_level)
    try:
        supervisor = Supervisor(chosen, options, config, log_level, typer.echo)
    except SettingsError as error:
        fail(str(error), BAD_VALUE)
    except PortUnusable as error:
        fail(str(error), STORE_PROBLEM)
    code = supervisor.run()
    typer.echo("stopped")
    raise typer.Exit(code)


def load(options: dict[str, Any], config: Path | None) -> Settings:
    """The settings of all sources; exit 2 when one of them is not usable."""
    try:
        return settings.load(options, config)
    except SettingsError as error:
        fail(str(error), BAD_VALUE)


def bind(chosen: Settings) -> socket.socket:
    """The socket to serve on, so that a port in use is told before anything is loaded."""
    try:
        return ports.bind(chosen.host, chosen.port)
    except PortUnusable as error:
        fail(str(error), STORE_PROBLEM)


def run(
    chosen: Settings,
    listener: socket.socket,
    log_level: str,
    on_ready: Callable[[str], None] | None = None,
    place: Place | None = None,
    read: Callable[[], Settings] | None = None,
) -> None:
    """Serve on `listener` until a signal ends it.

    Args:
        on_ready: called with the server's URL when every variant is settled.
        place: among the workers that share the port.
        read: reads the settings again, when they are to be reloaded.
    """
    # It would end a process that does not know yet what to reload; one that comes now waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    # Here, so that the commands that serve nothing do not wait for a web framework.
    import uvicorn

    from gateway.app import create_app
    from gateway.http.accepting import several
    from gateway.http.limits import limited
    from gateway.http.server import Server

    log(chosen, log_level, None if place is None else place.order.number)
    url = ports.url_of(chosen.host, listener, tls=chosen.tls_certificate is not None)
    ending = Ending(chosen.drain_seconds)

    def settled(service: Service) -> None:
        # Everything so far lives as long as the process. The collector would walk through all of
        # it again and again while requests wait.
        gc.collect()
        gc.freeze()
        _announce(service)
        if place is not None:
            place.settled(service.ready)
        else:
            line = f"{'ready' if service.ready else 'not ready'}: {url}/"
            typer.echo(line)
            notify.ready(line)
        if on_ready is not None:
            on_ready(url)

    try:
        app = create_app(chosen, settled, place=place, ending=ending, read=read)
    except (StoreUnusable, PortUnusable, LedgerForbidden) as error:
        listener.close()
        fail(str(error), STORE_PROBLEM)
    except SettingsError as error:  # one that only the store shows to make no sense
        listener.close()
        fail(str(error), BAD_VALUE)
    secured = app.tls
    files = open_files.raise_limit()

    def begin() -> None:
        ending.begin()
        if place is None:
            notify.stopping()

    server = Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=limited(
                chosen.max_header_bytes,
                chosen.read_timeout_seconds,
                write_timeout_seconds=chosen.write_timeout_seconds,
                max_connections=chosen.max_connections
                or open_files.connections(files, beside_grpc=chosen.grpc_port != "off"),
            ),
            timeout_keep_alive=math.ceil(chosen.idle_timeout_seconds),
            ssl_context_factory=None if secured is None else secured.accepting,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level=log_level,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
        ),
        ending,
        notice_s=chosen.notice_seconds,
        begin=begin,
        leave=app.leave,
        close=app.close,
    )

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        begin()
        server.should_exit = True

    # uvicorn drains on these and then raises them again for the handlers that were here before
    # it; the default ones would end a clean drain with the exit code of a kill.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    typer.echo(f"listening on {url}")
    if place is not None:
        place.listening()
    runner_factory = server.config.get_loop_factory()
    with asyncio.Runner(loop_factory=runner_factory) as runner:
        loop = runner.get_loop()
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(app.reload))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        runner.run(server.serve(sockets=several(listener)))
    if place is None:
        typer.echo("stopped")


def log(chosen: Settings, level: str, worker: int | None = None) -> None:
    """Start the log of this process; exit 2 where its file cannot be opened."""
    try:
        start(chosen, level, worker)
    except SettingsError as error:
        fail(str(error), BAD_VALUE)


def _announce(service: Service) -> None:
    """Say what serves and what does not. Flushed: whoever waits for it may read a pipe."""
    for problem in service.fleet.problems:
        typer.echo(f"left out: {problem}")
    for model in service.fleet.models():
        for name, state in model.states.items():
            if state.state == "failed" and name in model.builds:
                typer.echo(f"failed: {model.name}/{state.variant}: {state.why}")
        serving = ", ".join(sorted(model.ready)) or "nothing"
        typer.echo(f"{model.name}: {len(model.ready)} of {len(model.builds)} serve: {serving}")
