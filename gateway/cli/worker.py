"""What a process of `gearshift serve --workers N` runs; its supervisor starts it, nobody else."""

from __future__ import annotations

import sys
from functools import partial

import typer

from gateway import settings
from gateway.cli.serve import load, run
from gateway.ports import bind
from gateway.worker import Place


def main() -> int:
    """Take the place that this process was started for, and serve; the exit code."""
    try:
        place = Place.taken()
        chosen = load(place.order.options, place.order.config)
        run(
            chosen,
            bind(chosen.host, chosen.port, shared=True),
            place.order.log_level,
            place=place,
            read=partial(settings.load, place.order.options, place.order.config),
        )
    except typer.Exit as ended:
        return ended.exit_code
    except EOFError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
