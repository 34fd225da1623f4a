"""Requests of the Open Inference Protocol v2 as bytes: JSON, then binary tensors.

The specification: KServe's "Open Inference Protocol", REST, with the binary tensor data extension.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from gateway.engines import Tensor
from gateway.wire import booleans, classification, long_lists, raw_request, tensor_parameters
from gateway.wire.layouts import Layout, Layouts
from gateway.wire.long_lists import LONG_BYTES
from gateway.wire.tensors import (
    BINARY_SIZE,
    Tail,
    from_json,
    shape_of,
)
from router.card import TensorSpec
from router.errors import InvalidRequest

# What clients send in a request's top level; the two names repeat the path and are not read.
_KNOWN = frozenset(("id", "parameters", "inputs", "outputs", "model_name", "model_version"))

_NOTHING: Mapping[str, Any] = {}

# The header that tells where the JSON part of a body ends; 0 where there is none.
JSON_LENGTH = "Inference-Header-Content-Length"
CLASSIFICATION = "classification"


class Inputs(dict[str, TensorSpec]):
    """A model's inputs by name, in order.

    Attributes:
        processed: what a request may hold instead, where the model has a processor: what that
            reads, and the inputs that it does not fill. This is what metadata shows.
        layouts: of binary bodies that came before.
        one_by_one: whether elements of some are read one by one, also where they come as bytes.
    """

    def __init__(
        self, specs: Iterable[TensorSpec], processed: Iterable[TensorSpec] | None = None
    ) -> None:
        super().__init__({spec.name: spec for spec in specs})
        self.processed = None if processed is None else {spec.name: spec for spec in processed}
        self.layouts = Layouts()
        every = (*self.values(), *(self.processed or {}).values())
        self.one_by_one = any(spec.datatype == "BYTES" for spec in every)


class Body(NamedTuple):
    """A request's body, decoded.

    Attributes:
        outputs: the outputs that the answer should hold, in order, each with whether as bytes.
        classes: of those, the ones to answer as their highest values, and as how many
            (`gateway.wire.classification`).
    """

    id: str | None
    parameters: Mapping[str, Any]
    inputs: dict[str, Tensor]
    rows: int
    outputs: tuple[tuple[TensorSpec, bool], ...]
    classes: Mapping[str, int] = _NOTHING


def decode(
    body: bytes,
    json_length: bytes | None,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
) -> Body:
    """The body of an infer request.

    Args:
        json_length: the header `Inference-Header-Content-Length`, if it came.
        inputs, outputs: the model's, by name.

    Raises:
        InvalidRequest: it is not what the protocol or the model asks for.
    """
    start = None if json_length is None else _json_length(json_length, len(body))
    if start == 0:
        return of_raw(body, inputs, outputs)
    text = body if start is None else body[:start]
    layouts = inputs.layouts if start is not None and isinstance(inputs, Inputs) else None
    if layouts is not None:
        layout = layouts.find(text, len(body), outputs)
        if layout is not None:
            said: Body = layout.said
            return said._replace(inputs=layout.tensors(body))
    if len(text) >= LONG_BYTES:
        return of_document(
            parse_object(text, long_lists.parse), Tail(body, start), inputs, outputs, True
        )
    may_hold_bools = booleans.may_stand_in(text)
    tail = Tail(body, start)
    decoded = of_document(parse_object(text), tail, inputs, outputs, may_hold_bools)
    # A request's own name comes once.
    if layouts is not None and decoded.id is None and len(tail.places) == len(decoded.inputs):
        said = decoded._replace(inputs={})
        layouts.keep(text, Layout(tuple(tail.places), len(body), said, outputs))
    return decoded


def of_document(
    document: Mapping[str, Any],
    tail: Tail,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    may_hold_bools: bool,
) -> Body:
    """An infer request as the values that its JSON part says, whatever it was written as.

    Args:
        tail: where the binary tensors are.
        may_hold_bools: as `tensors.from_json`.

    Raises:
        InvalidRequest: it is not what the protocol or the model asks for.
    """
    only_known(document)
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidRequest("id", request_id, "text")
    parameters = members("parameters", document.get("parameters"))
    tensors, rows = _inputs(document.get("inputs"), inputs, tail, may_hold_bools)
    wanted = document.get("outputs")
    return Body(
        request_id,
        parameters,
        tensors,
        rows,
        _outputs(wanted, outputs, parameters),
        _classes(wanted, outputs) if wanted else _NOTHING,
    )


def of_raw(
    body: bytes, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
) -> Body:
    """A raw binary request, which has no JSON part.

    Raises:
        InvalidRequest: the model has more than one input, or the body is no such tensor.
    """
    if isinstance(inputs, Inputs) and inputs.processed is not None:
        inputs = inputs.processed
    if len(inputs) != 1:
        raise InvalidRequest(
            JSON_LENGTH, 0, f"a JSON part, for the model's inputs are {', '.join(inputs)}"
        )
    (spec,) = inputs.values()
    tensor = raw_request.tensor(body, spec)
    every = tuple([(output, True) for output in outputs.values()])
    return Body(None, _NOTHING, {spec.name: tensor}, len(tensor), every)


def is_long(body: bytes, json_length: bytes | None, inputs: Inputs) -> bool:
    """Whether `decode` may take so long that it should not run on the event loop."""
    if json_length is None or inputs.one_by_one:
        return len(body) >= LONG_BYTES
    return json_length.isdigit() and len(json_length) <= 10 and int(json_length) >= LONG_BYTES


def parse_object(text: bytes, parse: Callable[[bytes], Any] = orjson.loads) -> dict[str, Any]:
    """JSON text that is an object.

    Args:
        parse: `long_lists.parse` for a text that may be long.

    Raises:
        InvalidRequest: it is not.
    """
    try:
        document = parse(text)
    except orjson.JSONDecodeError as error:
        raise long_lists.not_json(text, error) from error
    if not isinstance(document, dict):
        raise InvalidRequest("body", type(document).__name__, "a JSON object")
    return document


def only_known(document: Mapping[str, Any], *more: str) -> None:
    """Refuse members of a body that mean nothing: one misspelt would silently demand nothing.

    Raises:
        InvalidRequest: there is one that is neither the protocol's nor among `more`.
    """
    if not document.keys() <= _KNOWN:
        known = _KNOWN.union(more)
        for odd in sorted(document.keys() - known):
            raise InvalidRequest("body", odd, f"no members but {', '.join(sorted(known))}")


def members(field: str, raw: object) -> Mapping[str, Any]:
    """An object that may be absent.

    Raises:
        InvalidRequest: it is something else.
    """
    if raw is None:
        return _NOTHING
    if not isinstance(raw, dict):
        raise InvalidRequest(field, raw, "an object")
    return raw


def _json_length(header: bytes, available: int) -> int:
    # isdigit() of bytes knows ASCII digits alone; ten of them hold any body there is.
    if header.isdigit() and len(header) <= 10 and int(header) <= available:
        return int(header)
    raise InvalidRequest(
        JSON_LENGTH,
        header.decode("latin-1"),
        f"a whole number of bytes up to the body's {available}",
    )


def _inputs(
    raw: object, specs: Mapping[str, TensorSpec], tail: Tail, may_hold_bools: bool
) -> tuple[dict[str, Tensor], int]:
    if isinstance(specs, Inputs) and specs.processed is not None and isinstance(raw, list):
        named = [item.get("name") for item in raw if isinstance(item, dict)]
        given = {name for name in named if isinstance(name, str)}
        if given.isdisjoint(specs) or not given.isdisjoint(specs.processed.keys() - specs.keys()):
            specs = specs.processed
    names = ", ".join(specs)
    if not isinstance(raw, list):
        raise InvalidRequest("inputs", raw, f"a list of tensors: {names}")
    tensors: dict[str, Tensor] = {}
    rows = 0
    for number, item in enumerate(raw):
        field = f"inputs[{number}]"
        spec = _named(field, item, specs, tensors, "each input once")
        if item.get("datatype") != spec.datatype:
            raise InvalidRequest(f"{field}.datatype", item.get("datatype"), spec.datatype)
        shape = shape_of(field, item.get("shape"), spec)
        if rows and shape[0] != rows:
            raise InvalidRequest(
                f"{field}.shape", list(shape), f"{rows} rows, as the input before it has"
            )
        rows = shape[0]
        own = members(f"{field}.parameters", item.get("parameters"))
        tensor_parameters.check(field, own)
        if BINARY_SIZE not in own:
            tensor = from_json(field, item.get("data"), spec, shape, may_hold_bools=may_hold_bools)
        elif "data" in item:
            raise InvalidRequest(f"{field}.data", "data", f"either data or {BINARY_SIZE}")
        else:
            tensor = tail.take(field, own[BINARY_SIZE], spec, shape)
        tensors[spec.name] = tensor
    if len(tensors) < len(specs):
        missing = ", ".join(name for name in specs if name not in tensors)
        raise InvalidRequest("inputs", f"no {missing}", f"every input: {names}")
    tail.finish()
    return tensors, rows


def check_sizes(
    inputs: Mapping[str, Tensor], equal: tuple[tuple[tuple[str, int], ...], ...]
) -> None:
    """Hold free sizes to one another. Each engine does something else where they disagree, and some
    of them answer.

    Raises:
        InvalidRequest: two that must be equal are not; it names the input.
    """
    for (first, dimension), *others in equal:
        if first not in inputs:
            continue  # a processor makes them, and makes them fit
        size = inputs[first].shape[dimension]
        for name, other in others:
            shape = inputs[name].shape
            if shape[other] != size:
                raise InvalidRequest(
                    f"inputs.{name}.shape",
                    list(shape),
                    f"{size} at dimension {other}, as {first} has at dimension {dimension}",
                )


def _outputs(
    raw: object, specs: Mapping[str, TensorSpec], parameters: Mapping[str, Any]
) -> tuple[tuple[TensorSpec, bool], ...]:
    default = _flag("parameters.binary_data_output", parameters.get("binary_data_output"), False)
    if raw is None or raw == []:
        return tuple([(spec, default) for spec in specs.values()])
    if not isinstance(raw, list):
        raise InvalidRequest("outputs", raw, "a list")
    chosen: dict[str, tuple[TensorSpec, bool]] = {}
    for number, item in enumerate(raw):
        field = f"outputs[{number}]"
        spec = _named(field, item, specs, chosen, "each output once")
        own = members(f"{field}.parameters", item.get("parameters"))
        tensor_parameters.check(field, own)
        binary = _flag(f"{field}.parameters.binary_data", own.get("binary_data"), default)
        chosen[spec.name] = (spec, binary)
    return tuple(chosen.values())


def _classes(raw: Any, specs: Mapping[str, TensorSpec]) -> Mapping[str, int]:
    """What `Body.classes` holds, of outputs that `_outputs` has accepted."""
    classes: dict[str, int] = {}
    for number, item in enumerate(raw):
        own = item.get("parameters")
        if own and CLASSIFICATION in own:
            field = f"outputs[{number}].parameters.{CLASSIFICATION}"
            spec = specs[item["name"]]
            if count := classification.count_of(field, own[CLASSIFICATION], spec):
                classes[spec.name] = count
    return classes or _NOTHING


def _named(
    field: str,
    item: Any,
    specs: Mapping[str, TensorSpec],
    taken: Container[str],
    once: str,
) -> TensorSpec:
    """The tensor that an item of `inputs` or `outputs` names, which none before it did."""
    if not isinstance(item, dict):
        raise InvalidRequest(field, item, "an object")
    name = item.get("name")
    spec = specs.get(name) if isinstance(name, str) else None
    if spec is None:
        raise InvalidRequest(f"{field}.name", name, f"one of {', '.join(specs)}")
    if spec.name in taken:
        raise InvalidRequest(f"{field}.name", name, once)
    return spec


def _flag(field: str, raw: object, default: bool) -> bool:
    if raw is None:
        return default
    if not isinstance(raw, bool):
        raise InvalidRequest(field, raw, "true or false")
    return raw
