"""What a process of `gearshift serve --workers N` runs; its supervisor starts it, nobody else."""

from __future__ import annotations

import sys
from functools import partial

import typer

from gateway import settings
from gateway.cli.console import STORE_PROBLEM
from gateway.cli.serve import load, run
from gateway.processes.ports import PortUnusable, bind
from gateway.processes.worker import Place


def main() -> int:
    """Take the place that this process was started for, and serve; the exit code."""
    try:
        place = Place.taken()
    except EOFError:  # the supervisor was quicker to end
        return 0
    order = place.order
    try:
        chosen = load(order.options, order.config)
        listener = bind(chosen.host, chosen.port, shared=True)
        read = partial(settings.load, order.options, order.config)
        run(chosen, listener, order.log_level, place=place, read=read)
    except PortUnusable as error:
        typer.echo(f"error: {error}", err=True)
        return STORE_PROBLEM
    except typer.Exit as ended:
        return ended.exit_code
    finally:
        place.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
