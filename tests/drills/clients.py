"""Clients of a soak: threads that ask without end, and count what came of each request."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np

from tests.drills.audit import LEFT
from tests.e2e.harness import infer_body

Asker = Callable[[Random], str]
"""Asks once; returns the outcome as the server counts it: `ok`, an error's code, or `LEFT`."""
MODELS = ("echo", "other")
LEAVING = "leaving"
"""The model of those who leave, so that everybody else's requests are counted exactly."""


class Count:
    """Requests by outcome. What came of those of a thread that broke is in `broken`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.broken: list[str] = []

    def add(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1


@contextmanager
def asking(askers: Mapping[str, Asker], count: Count, pause_s: float) -> Iterator[None]:
    """Each asker asks in a thread of its own until the block is left."""
    ended = threading.Event()

    def ask(name: str, asker: Asker) -> None:
        dice = Random(name)
        while not ended.wait(pause_s * 2 * dice.random()):
            try:
                count.add(asker(dice))
            except Exception as error:
                count.broken.append(f"{name}: {type(error).__name__}: {error}")
                return

    threads = [threading.Thread(target=ask, args=item) for item in askers.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def wishes(dice: Random) -> dict[str, str]:
    """Constraints, by header: mostly none, or ones that can be met."""
    match dice.randrange(10):
        case 0 | 1:
            return {"Gearshift-Max-Latency-Ms": str(dice.choice((2, 20, 60, 500)))}
        case 2:
            return {"Gearshift-Min-Accuracy": dice.choice(("0.9", "99%", "0.5"))}
        case 3:
            return {"Gearshift-Variant": dice.choice(("small", "int8", "reference", "nobody"))}
        case 4:
            return {"Gearshift-Optimize": dice.choice(("cost", "latency"))}
        case 5:
            return {"Gearshift-Min-Accuracy": "0.999"}  # nobody can
        case 6:
            return {"Gearshift-Max-Latency-Ms": "20", "Gearshift-Relax": "latency",
                    "Gearshift-Priority": "low"}  # fmt: skip
    return {}


def content(dice: Random) -> tuple[bytes, dict[str, str]]:
    """A body, and the headers it needs: JSON, binary, or nothing of the kind."""
    rows = dice.choice((1, 1, 1, 2, 5))
    match dice.randrange(12):
        case 0:
            return b"{" + dice.randbytes(9), {}
        case 1:
            return json.dumps({"inputs": [{"name": "nobody"}]}).encode(), {}
        case 2 | 3 | 4 | 5:
            raw = np.zeros((rows, 4), np.float32).tobytes()
            tensor = {"name": "image", "datatype": "FP32", "shape": [rows, 4],
                      "parameters": {"binary_data_size": len(raw)}}  # fmt: skip
            text = json.dumps(
                {"inputs": [tensor], "parameters": {"binary_data_output": True}}
            ).encode()
            return text + raw, {"Inference-Header-Content-Length": str(len(text))}
    return json.dumps(infer_body(rows)).encode(), {}


def rest(address: str, key: str) -> Asker:
    """Over one connection, good and bad; now and then with a key that is none."""
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)

    def ask(dice: Random) -> str:
        body, headers = content(dice)
        model = dice.choice(MODELS) if dice.random() < 0.97 else "nobody"
        bearer = key if dice.random() < 0.97 else "gs_made_up"
        headers |= {**wishes(dice), "Authorization": f"Bearer {bearer}"}
        connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        response = connection.getresponse()
        answer = response.read()
        return "ok" if response.status == 200 else str(json.loads(answer)["code"])

    return ask


def rpc(address: str, key: str) -> Asker:
    """Over gRPC."""
    import grpc
    from tritonclient.grpc import service_pb2 as messages

    channel = grpc.insecure_channel(address)
    infer: Any = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=messages.ModelInferRequest.SerializeToString,
        response_deserializer=messages.ModelInferResponse.FromString,
    )

    def ask(dice: Random) -> str:
        rows = dice.choice((1, 1, 2))
        message = messages.ModelInferRequest(model_name=dice.choice(MODELS))
        message.inputs.add(name="image", datatype="FP32", shape=[rows, dice.choice((4, 4, 4, 3))])
        message.raw_input_contents.append(bytes(16 * rows))
        metadata = [(name.lower(), value) for name, value in wishes(dice).items()]
        try:
            infer(message, metadata=[*metadata, ("authorization", f"Bearer {key}")], timeout=30)
        except grpc.RpcError as error:
            told = dict(error.trailing_metadata() or ())  # type: ignore[attr-defined]
            return str(told.get("gearshift-code") or error)
        return "ok"

    return ask


def leaver(address: str, key: str) -> Asker:
    """Leaves in the middle: of the head, of the body, of the wait, of the answer."""
    host, port = address.split(":")

    def ask(dice: Random) -> str:
        body = json.dumps(infer_body(dice.choice((1, 50)))).encode()
        head = (
            f"POST /v2/models/{LEAVING}/infer HTTP/1.1\r\nHost: soak\r\n"
            f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        message = head.encode() + body
        with socket.create_connection((host, int(port))) as connection:
            match dice.randrange(4):
                case 0:
                    connection.sendall(message[: dice.randrange(1, len(head))])
                case 1:
                    connection.sendall(message[: len(head) + dice.randrange(len(body))])
                case 2:
                    connection.sendall(message)
                case _:
                    connection.sendall(message)
                    connection.recv(9)
            if dice.random() < 0.5:  # as a process that is killed
                reset = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        return LEFT

    return ask
