"""Infer requests and answers as protobuf: Open Inference Protocol v2, gRPC, "Inference".

A request becomes the document that REST would have read as JSON, so that both make the same checks
in the same words; where the words name a field, it is the message's own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from tritonclient.grpc import service_pb2 as pb

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.rpc import long_messages
from gateway.wire import classification, said, v2
from gateway.wire.long_lists import LONG_BYTES, LONG_ELEMENTS, LongList
from gateway.wire.tensors import BINARY_SIZE, Tail, to_bytes
from router.card import TensorSpec
from router.errors import InvalidRequest

# The member of `InferTensorContents` that holds a datatype. FP16 and BF16 have none: "must be
# represented in raw_input_contents" (and raw_output_contents).
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_RAW_OUTPUTS = "binary_data_output"

_PIECE_ELEMENTS = 8 << 10
# Long enough that a thread which waits for the interpreter gets it.
_PAUSE_S = 1e-5


class _LongContents(LongList):
    """Many typed elements, read piece by piece, beside the event loop."""

    def __init__(self, contents: Sequence[Any]) -> None:
        self._contents = contents

    def whole(self) -> list[Any]:
        return list(self._contents)

    def tensor(self, datatype: str, shape: tuple[int, ...]) -> Tensor | None:
        if len(self._contents) != math.prod(shape):
            return None
        tensor = np.empty(len(self._contents), NUMPY_TYPES[datatype])
        try:
            for first in range(0, tensor.size, _PIECE_ELEMENTS):
                tensor[first : first + _PIECE_ELEMENTS] = self._contents[
                    first : first + _PIECE_ELEMENTS
                ]
                time.sleep(_PAUSE_S)
        except OverflowError:
            return None
        return tensor.reshape(shape)


class _Raws(Tail):
    """`raw_input_contents`, each the bytes of the next input."""

    def __init__(self, raws: Sequence[bytes]) -> None:
        self._raws = raws  # or views of them
        self._taken = 0

    def take(self, field: str, _: object, spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
        number = self._taken
        if number >= len(self._raws):
            raise self._miscounted("one for each of inputs")
        self._taken += 1
        raw = self._raws[number]
        try:
            return Tail(raw, 0).take(field, len(raw), spec, shape)
        except InvalidRequest as error:
            raise _renamed(error, f"raw_input_contents[{number}]") from error

    def finish(self) -> None:
        if self._taken < len(self._raws):
            raise self._miscounted(f"{self._taken}, one for each of inputs")

    def _miscounted(self, expected: str) -> InvalidRequest:
        return InvalidRequest("raw_input_contents", f"{len(self._raws)} tensors", expected)


def parsed(kind: Any, raw: bytes) -> Any:
    """The message of type `kind` that `raw` is.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        if kind is pb.ModelInferRequest and len(raw) >= LONG_BYTES:
            return long_messages.parsed(raw)
        return kind.FromString(raw)
    except Exception as error:  # protobuf has one exception for each of its implementations
        raise InvalidRequest("body", f"{len(raw)} bytes", f"a message {kind.__name__}") from error


def is_long(message: Any, size: int, inputs: v2.Inputs) -> bool:
    """Whether `decode` of a message of `size` bytes may take so long that it should not run on the
    event loop: its elements are read one by one."""
    return size >= LONG_BYTES and (inputs.one_by_one or not len(message.raw_input_contents))


def decode(
    message: Any, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
) -> v2.Body:
    """A ModelInferRequest, checked against the model's inputs and outputs.

    Its answer is raw where the request is, unless `binary_data_output` or an output's `binary_data`
    says otherwise, as over REST.

    Raises:
        InvalidRequest: it is not what the protocol or the model asks for.
    """
    raws = message.raw_input_contents
    document: dict[str, Any] = {
        "inputs": [_input(number, item, raws) for number, item in enumerate(message.inputs)],
        "outputs": [
            {"name": item.name, "parameters": values(item.parameters)} for item in message.outputs
        ],
        "parameters": {_RAW_OUTPUTS: len(raws) > 0, **values(message.parameters)},
    }
    if message.id:
        document["id"] = message.id
    try:
        return v2.of_document(document, _Raws(raws), inputs, outputs, may_hold_bools=False)
    except InvalidRequest as error:
        field = str(error.members["field"])
        if field.endswith("].data"):
            raise _renamed(error, field.removesuffix("data") + "contents") from error
        raise


def values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`InferParameter`s as plain values; one that holds nothing is None."""
    plain: dict[str, Any] = {}
    for key, parameter in parameters.items():
        chosen = parameter.WhichOneof("parameter_choice")
        plain[key] = None if chosen is None else getattr(parameter, chosen)
    return plain


def encode(
    body: v2.Body,
    model: str,
    variant: str,
    tensors: Mapping[str, Tensor],
    labels: tuple[str, ...] | None,
) -> Any:
    """The ModelInferResponse to `body`: all its outputs raw, or none.

    Args:
        labels: the model's class labels, if it has any.
    """
    answer = pb.ModelInferResponse(model_name=model, model_version=variant, id=body.id or "")
    outputs = body.outputs
    if body.classes:
        outputs, tensors = classification.applied(outputs, tensors, body.classes, labels)
    raw = any(binary or spec.datatype not in _CONTENTS for spec, binary in outputs)
    for spec, _ in outputs:
        tensor = tensors[spec.name]
        one = answer.outputs.add(name=spec.name, datatype=spec.datatype, shape=tensor.shape)
        if raw:
            answer.raw_output_contents.append(to_bytes(spec, tensor))
        else:
            getattr(one.contents, _CONTENTS[spec.datatype]).extend(tensor.reshape(-1).tolist())
    return answer


def say(answer: Any, parameters: Mapping[str, str]) -> None:
    """Add text to the parameters of an answer."""
    for key, text in parameters.items():
        answer.parameters[key].string_param = text


def as_parameters(words: said.Said) -> dict[str, str]:
    """What an answer says about itself, by the keys of parameters: `gearshift_variant`."""
    return {key.decode().replace("-", "_"): text.decode() for key, text in words}


def explain(answer: Any, decision: Mapping[str, Any]) -> None:
    """Add the whole decision, as JSON, to the parameters of an answer."""
    say(answer, {"gearshift_decision": orjson.dumps(decision).decode()})


def _input(number: int, item: Any, raws: Sequence[bytes]) -> dict[str, Any]:
    """An item of `inputs` as the document has it."""
    parameters = values(item.parameters)
    one = {
        "name": item.name,
        "datatype": item.datatype,
        "shape": list(item.shape),
        "parameters": parameters,
    }
    filled = [field.name for field, _ in item.contents.ListFields()]
    field = f"inputs[{number}].contents"
    if len(raws):
        if filled:
            raise InvalidRequest(field, filled[0], "none beside raw_input_contents")
        parameters[BINARY_SIZE] = 0  # what it is, the bytes themselves say
        return one
    parameters.pop(BINARY_SIZE, None)
    wanted = _CONTENTS.get(item.datatype)
    if wanted is None and item.datatype in ("FP16", "BF16"):
        raise InvalidRequest(field, item.datatype, "raw_input_contents, its only form")
    if wanted is not None and filled not in ([], [wanted]):
        odd = next(name for name in filled if name != wanted)
        raise InvalidRequest(field, odd, f"{wanted}, which holds {item.datatype}")
    contents = getattr(item.contents, wanted) if wanted else ()
    long = len(contents) >= LONG_ELEMENTS and item.datatype != "BYTES"
    one["data"] = _LongContents(contents) if long else list(contents)
    return one


def _renamed(error: InvalidRequest, field: str) -> InvalidRequest:
    """The same words of a field that is called otherwise here."""
    renamed = InvalidRequest(field, error.members["received"], str(error.members["expected"]))
    renamed.detail = field + error.detail.removeprefix(str(error.members["field"]))
    return renamed
