"""Padding: a card's word that rows of another length may run together, filled up to one.

Rows of different shapes make no one tensor, and an engine sets itself up anew for each shape that
it has not seen. Where a network ignores what a mask leaves out, its author may declare so: rows
are filled up with a value to the least of a few sizes, the buckets, and what comes out is cut back.
Without a declaration nothing is ever padded: that changes what the caller asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from router.card import TensorSpec

_Positive = Annotated[int, Field(ge=1)]
# The range of each datatype that has one; a float takes any finite number.
_WHOLE = {"BOOL": (0, 1)} | {
    f"{kind}{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1)
    if kind == "INT"
    else (0, (1 << bits) - 1)
    for kind in ("INT", "UINT")
    for bits in (8, 16, 32, 64)
}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PaddedInput(_Record):
    """A dimension of an input, counted with the batch as 0, and what fills it up."""

    input: str
    dimension: _Positive
    value: Annotated[float, Field(allow_inf_nan=False)] | bool | int = 0


class CutOutput(_Record):
    """A dimension of an output that is as long as the padded ones: the rest is cut off."""

    output: str
    dimension: _Positive


class Padding(_Record):
    """Dimensions that are equally long in a request, such as those of tokens and of their mask.

    `buckets` are the lengths that they are filled up to, rising. What is longer than the last one
    runs as it is.
    """

    inputs: Annotated[tuple[PaddedInput, ...], Field(min_length=1)]
    outputs: tuple[CutOutput, ...] = ()
    buckets: Annotated[tuple[_Positive, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _buckets_rise(self) -> Self:
        if list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"buckets must rise, got {self.buckets}")
        return self

    def bucket(self, length: int) -> int:
        """What rows of this length are filled up to; the length itself past the last bucket."""
        place = bisect_left(self.buckets, length)
        return self.buckets[place] if place < len(self.buckets) else length


def check(
    paddings: Sequence[Padding],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    equal: Sequence[Sequence[tuple[str, int]]],
) -> None:
    """Hold what is declared to the tensors there are.

    Args:
        equal: dimensions that must be equally long in a request, as (input, dimension).

    Raises:
        ValueError: it names a tensor or a dimension that is not there or has a fixed size, one
            twice, a value that the input cannot hold, or only some of those that must be equal.
    """
    given, made = ({spec.name: spec for spec in specs} for specs in (inputs, outputs))
    padded: dict[tuple[str, int], int] = {}
    values: dict[str, float] = {}
    cut: set[tuple[str, int]] = set()
    for number, padding in enumerate(paddings):
        for one in padding.inputs:
            spec = _free(given, "input", one.input, one.dimension)
            if (one.input, one.dimension) in padded:
                raise ValueError(f"padding: dimension {one.dimension} of {one.input!r} twice")
            padded[one.input, one.dimension] = number
            _holds(spec, one.value)
            if values.setdefault(one.input, one.value) != one.value:
                raise ValueError(f"padding: {one.input!r} is filled with more than one value")
        for other in padding.outputs:
            _free(made, "output", other.output, other.dimension)
            if (other.output, other.dimension) in cut:
                raise ValueError(f"padding: dimension {other.dimension} of {other.output!r} twice")
            cut.add((other.output, other.dimension))
    for group in equal:
        if len({padded.get(place) for place in group}) > 1:
            raise ValueError(
                "padding: dimensions that are equally long must be padded together: "
                + ", ".join(f"dimension {dimension} of {name!r}" for name, dimension in group)
            )


def _free(specs: Mapping[str, TensorSpec], kind: str, name: str, dimension: int) -> TensorSpec:
    spec = specs.get(name)
    if spec is None:
        raise ValueError(f"padding: there is no {kind} {name!r}; there are {', '.join(specs)}")
    if dimension >= len(spec.shape) or spec.shape[dimension] != -1:
        raise ValueError(
            f"padding: dimension {dimension} of {kind} {name!r} is not free in {list(spec.shape)}"
        )
    return spec


def _holds(spec: TensorSpec, value: float) -> None:
    if spec.datatype == "BYTES":
        raise ValueError(f"padding: {spec.name!r} holds BYTES, which nothing fills up")
    whole = _WHOLE.get(spec.datatype)
    if whole is not None and not (float(value).is_integer() and whole[0] <= value <= whole[1]):
        raise ValueError(f"padding: {spec.name!r} is {spec.datatype} and cannot hold {value!r}")
