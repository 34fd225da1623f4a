"""A lowered program at other sizes than the samples': a task's free dimensions are free in it too.

The graph that is lowered was checked with other sizes, and a converter may fix one all the same:
such a program fails, or computes something else, on the first request of another length.
"""

from __future__ import annotations

from compressors import padded, verify
from compressors.errors import BuildError
from compressors.export import first_line
from compressors.interface import Interface, run
from compressors.task import Array
from compressors.technique import Network
from gateway import padding
from gateway.engines import Program


def check(program: Program, network: Network, interface: Interface) -> None:
    """Run network and program on the interface's example in other sizes; without free dimensions
    besides the batch there is nothing to check.

    Raises:
        BuildError: the program does not run with them, and as ShapeChanged, NotFinite or
            ExportMismatch: it computes otherwise than the network. The message names the sizes.
    """
    if not interface.measured_shapes:
        return
    inputs, outputs = interface.resized(), tuple(spec.name for spec in interface.outputs)
    _compare(program, network, inputs, outputs)
    if interface.padding:
        alone, filled, cuts = padded.example(interface)
        _compare(program, network, alone, outputs, filled, cuts)


def _compare(
    program: Program,
    network: Network,
    inputs: dict[str, Array],
    outputs: tuple[str, ...],
    filled: dict[str, Array] | None = None,
    cuts: tuple[padding.Cut, ...] = (),
) -> None:
    """Hold what the program says of `filled`, cut back, to what the network says of `inputs`."""
    given = inputs if filled is None else filled
    sizes = ", ".join(f"{name} {array.shape}" for name, array in given.items())
    own = run(network.module, inputs, outputs)
    try:
        got = padding.cut(program.infer(given), cuts)
    except Exception as error:  # an engine's own, or its library's
        raise BuildError(f"the program does not run with {sizes}: {first_line(error)}") from error
    try:
        verify.same_shapes(own, got, "the program")
        verify.finite(got, "the program")
        verify.export_matches(own, got, network.numerics.precision, network.numerics.weights)
    except BuildError as error:
        raise type(error)(f"with {sizes}: {error}") from error
