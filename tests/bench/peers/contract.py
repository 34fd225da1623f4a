"""What a file of `servers/` says of its software; the standard library alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Debian's: Triton's own Python fails under some others.
PYTHON = "/usr/bin/python3.11"
# The same build for all, ours too.
RUNTIME = "onnxruntime==1.31.1"
PIXELS, CLASSES = 784, 10
MAX_BATCH, WAIT_S = 32, 0.002


@dataclass(frozen=True)
class Ask:
    """One request with one row; the path on the server, the headers, the body."""

    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Form:
    """One way to write a request, and to read its answer.

    Attributes:
        ask: a request of one row, from its 784 numbers as little-endian float32.
        logits: the 10 numbers of an answer, from its headers (names in small letters) and body.
        says: what it is, for the table.
    """

    ask: Callable[[bytes], Ask]
    logits: Callable[[Mapping[str, str], bytes], Sequence[float]]
    says: str


@dataclass(frozen=True)
class Peer:
    """One piece of serving software.

    Attributes:
        requirements: what pip installs, by exact versions; empty for what is here already.
        command: from the environment's `bin` folder, the work folder (`network.onnx` is in it) and
            a free port, the command that serves in the foreground until SIGTERM.
        ready: a path that answers 200 as soon as it can serve.
        forms: "json" and "binary", or the first alone.
        setup: how it was set up, in a few words, for the table.
    """

    name: str
    version: str
    requirements: tuple[str, ...]
    command: Callable[[Path, Path, int], Sequence[str]]
    ready: str
    forms: Mapping[str, Form]
    setup: str
    environment: Mapping[str, str] = field(default_factory=dict)


def module(name: str) -> str:
    """The name under which a file of `apps/` runs in its own environment."""
    return f"tests.bench.peers.apps.{name}"


def numbers(row: bytes) -> list[float]:
    """The row as numbers to write in decimal, four places each, as clients send pictures."""
    return [round(value, 4) for value in memoryview(row).cast("f")]


def plain_json(path: str, member: str) -> Callable[[bytes], Ask]:
    """`{"member": [784 numbers]}`"""

    def ask(row: bytes) -> Ask:
        body = json.dumps({member: numbers(row)}).encode()
        return Ask(path, body, {"Content-Type": "application/json"})

    return ask


def raw(path: str) -> Callable[[bytes], Ask]:
    """The bytes of the row, and nothing else."""

    def ask(row: bytes) -> Ask:
        return Ask(path, row, {"Content-Type": "application/octet-stream"})

    return ask


def base64_text(row: bytes) -> str:
    """The bytes of the row as text, for software that takes JSON alone."""
    return base64.b64encode(row).decode()


def v2_json(path: str, name: str) -> Callable[[bytes], Ask]:
    """The Open Inference Protocol v2 with the data as JSON."""

    def ask(row: bytes) -> Ask:
        tensor = {"name": name, "datatype": "FP32", "shape": [1, PIXELS], "data": numbers(row)}
        body = json.dumps({"inputs": [tensor]}).encode()
        return Ask(path, body, {"Content-Type": "application/json"})

    return ask


def v2_binary(path: str, name: str, output: str) -> Callable[[bytes], Ask]:
    """The Open Inference Protocol v2 with binary tensors, in and out."""

    def ask(row: bytes) -> Ask:
        parameters = {"binary_data_size": len(row)}
        tensor = {
            "name": name,
            "datatype": "FP32",
            "shape": [1, PIXELS],
            "parameters": parameters,
        }
        wanted = {"name": output, "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
        return Ask(
            path,
            head + row,
            {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(len(head)),
            },
        )

    return ask


def v2_logits(headers: Mapping[str, str], content: bytes) -> Sequence[float]:
    """The first output of a v2 answer, whichever way it is written."""
    length = headers.get("inference-header-content-length")
    if length is not None:
        return list(memoryview(content[int(length) :]).cast("f"))
    found: list[float] = json.loads(content)["outputs"][0]["data"]
    return found


def json_logits(headers: Mapping[str, str], content: bytes) -> Sequence[float]:  # noqa: ARG001
    """An answer that is a JSON list of numbers, or a list of one such list."""
    found = json.loads(content)
    return found[0] if isinstance(found[0], list) else found
