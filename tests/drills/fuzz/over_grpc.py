"""At the door: cases of a real server's gRPC port."""

from __future__ import annotations

from contextlib import ExitStack
from random import Random

import grpc
from tritonclient.grpc import service_pb2 as messages

from tests.drills import mutations
from tests.drills.fuzz.cases import Case, Fault
from tests.drills.mutations import DATATYPES


def rpc(address: str, stack: ExitStack) -> Case:
    """Messages of gRPC: tampered fields, tampered bytes, tampered metadata."""
    channel = stack.enter_context(grpc.insecure_channel(address))
    method = "/inference.GRPCInferenceService/"
    calls = {
        name: channel.unary_unary(method + name)
        for name in ("ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics",
                     "RepositoryIndex", "ModelReady")
    }  # fmt: skip
    stream = channel.stream_stream(method + "ModelStreamInfer")
    bad = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE,
           grpc.StatusCode.DATA_LOSS}  # fmt: skip
    contents = {
                "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
                "UINT32": "uint_contents", "UINT64": "uint64_contents", "INT8": "int_contents",
                "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
                "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
    }  # fmt: skip

    def message(dice: Random) -> bytes:
        datatype = dice.choice(DATATYPES)
        document, tail = mutations.request(dice, datatype)
        shape = document["inputs"][0]["shape"]
        made = messages.ModelInferRequest(model_name=datatype.lower())
        tensor = made.inputs.add(name="given", datatype=datatype, shape=shape)
        if tail is not None or datatype not in contents:
            made.raw_input_contents.append(tail if tail is not None else b"\0\0" * 2 * shape[0])
        else:
            values: list[object] = [dice.randrange(2) for _ in range(2 * shape[0])]
            if datatype == "BYTES":
                values = [b"x"] * len(values)
            getattr(tensor.contents, contents[datatype]).extend(values)
        for _ in range(dice.choice((0, 0, 1, 2))):
            match dice.randrange(8):
                case 0:
                    tensor.shape[:] = [dice.choice((-1, 0, 1, 2**62, 2**63 - 1)) for _ in "ab"]
                case 1:
                    tensor.datatype = dice.choice((*DATATYPES, "", "fp32", "\0"))
                case 2:
                    made.raw_input_contents.append(dice.randbytes(dice.choice((0, 1, 8, 900))))
                case 3:
                    made.model_name = dice.choice(("", "nobody", "../..", "x" * 999))
                case 4:
                    made.model_version = dice.choice(("fp32", "1", "../..", "reference"))
                case 5:
                    key = dice.choice(mutations.NAMES)
                    try:
                        made.parameters[key].CopyFrom(_parameter(dice))
                    except ValueError:
                        continue
                case 6:
                    made.outputs.add(name=dice.choice(("same", "", "nobody")))
                case _:
                    tensor.contents.fp32_contents.extend([0.5] * dice.choice((1, 2, 99)))
        raw: bytes = made.SerializeToString()
        return mutations.scrambled(dice, raw) if dice.random() < 0.4 else raw

    def case(dice: Random) -> str:
        sent = message(dice)
        metadata = [
            (name, "".join(c for c in value if 0x20 <= ord(c) < 0x7F).strip())
            for name, value in (mutations.stated(dice) if dice.random() < 0.3 else [])
            if name not in ("grpc-timeout", "gearshift-")
        ]
        name = dice.choice(("ModelInfer",) * 8 + tuple(calls))
        try:
            if dice.random() < 0.1:
                for _ in stream(iter([sent]), metadata=metadata, timeout=10):
                    pass
            else:
                calls[name](sent, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()  # type: ignore[attr-defined]
            if code in bad or ".py" in (details or ""):
                raise Fault(f"{code}: {details!r} for {name} {sent!r} {metadata}") from None
            return str(code.name)
        return "OK"

    return case


def _parameter(dice: Random) -> object:
    make = messages.InferParameter
    return dice.choice(
        (
            make(bool_param=True), make(int64_param=-(2**63)), make(int64_param=5),
            make(string_param="99%"), make(string_param="x" * 999), make(),
            make(double_param=1e308), make(double_param=float("nan")),
            make(uint64_param=2**64 - 1), make(string_param="cost"),
        )
    )  # fmt: skip
