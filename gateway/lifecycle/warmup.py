"""Loading a build's programs, and warming them up: a variant serves only after it has answered.

On every lane and for every batch size it must answer with the shape and datatype that its card
promises: a failed warm-up keeps it out, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.engines import NUMPY_TYPES, EngineError, Program, Tensor
from gateway.hosts import Host
from gateway.lifecycle.catalog import Entry, VariantUnusable, check_unchanged
from gateway.padding import warm_up_inputs
from router.card import TensorSpec, VariantCard


class FilesChanged(EngineError):
    """What lies in a build's folder is not what was checked."""


def load_program(
    host: Host,
    entry: Entry,
    *,
    threads: int,
    max_batch: int,
    trust: bool,
    pause: Callable[[], None] = lambda: None,
) -> Program:
    """As `load_programs`, for one lane."""
    (program,) = load_programs(
        [host], entry, threads=threads, max_batch=max_batch, trust=trust, pause=pause
    )
    return program


def load_programs(
    hosts: Sequence[Host],
    entry: Entry,
    *,
    threads: int,
    max_batch: int,
    trust: bool,
    pause: Callable[[], None] = lambda: None,
) -> list[Program]:
    """The programs of `entry`, one for the lane of each host, warm.

    What lies in its folder is checked before and after, as it will be whenever a host loads one
    of them anew.

    Args:
        pause: called between two steps of it, so that lanes that serve are not kept waiting.

    Raises:
        FilesChanged: it is not what it was.
        EngineError: it cannot be loaded, or answered with something else than its card promises.
            Other exceptions are the engine's own.
    """

    def verify() -> None:
        try:
            check_unchanged(entry)
        except VariantUnusable as error:
            raise FilesChanged(str(error)) from error

    verify()
    programs: list[Program] = []
    try:
        for host in hosts:
            program = host.load(
                entry.folder, entry.card, threads=threads, trusted=trust, verify=verify
            )
            programs.append(program)
            warm_up(program, entry.card, max_batch, pause)
            pause()
        verify()
    except BaseException:
        for program in programs:
            program.close()
        raise
    return programs


def warm_up(
    program: Program,
    card: VariantCard,
    max_batch: int,
    pause: Callable[[], None] = lambda: None,
) -> None:
    """Run every batch size once, at each length that the card pads to, so that no request is the
    first of its size.

    Raises:
        EngineError: it answered with something else than its card promises.
    """
    for rows, inputs in warm_up_inputs(card, max_batch):
        check_outputs(program.infer(inputs), card.outputs, rows)
        pause()


def check_outputs(outputs: Mapping[str, Tensor], specs: tuple[TensorSpec, ...], rows: int) -> None:
    """Hold what an engine answered to what was promised.

    Raises:
        EngineError: an output is missing, or has another shape or datatype.
    """
    for spec in specs:
        tensor = outputs.get(spec.name)
        if tensor is None:
            raise EngineError(f"output {spec.name!r} is missing")
        expected = (rows, *spec.shape[1:])
        if len(tensor.shape) != len(expected) or any(
            wanted not in (size, -1) for size, wanted in zip(tensor.shape, expected, strict=True)
        ):
            raise EngineError(f"output {spec.name!r} has shape {tensor.shape}, expected {expected}")
        if tensor.dtype != NUMPY_TYPES[spec.datatype]:
            raise EngineError(
                f"output {spec.name!r} has datatype {tensor.dtype}, expected {spec.datatype}"
            )
