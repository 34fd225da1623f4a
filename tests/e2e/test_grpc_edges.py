"""gRPC at its edges: callers that leave, deadlines, limits, what is no message, stops."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from gateway.processes.cores import usable_cores
from tests.e2e import statuses
from tests.e2e.gate import Gate
from tests.e2e.harness import PATIENCE_S, Server, until
from tests.e2e.statuses import IMAGE, Ask
from tests.stores import write_variant

LIMIT_BYTES = 1 << 20
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32", latency_ms_at_1=20, **gate.echo)
    write_variant(models, "stalls", "fp32", latency_ms_at_1=5, **gate.echo)
    write_variant(models, "slow", "fp32", latency_ms_at_1=60_000, latency_ms_at_32=60_000)
    write_variant(models, "quick", "fp32")
    with Server(
        models,
        max_batch=8,
        grpc_port=0,
        max_body_bytes=LIMIT_BYTES,
        read_timeout_seconds=2,
        idle_timeout_seconds=3,
    ) as server:
        yield server


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    """Whatever a test does to it, afterwards the server serves and has nothing to report."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield channel
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(statuses.message(Ask(model="quick"))).outputs
    assert "Traceback" not in server.log()


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return GRPCInferenceServiceStub(channel)


def ended(server: Server, outcome: str) -> float:
    return server.metric("gearshift_requests_total", outcome=outcome)


def test_who_cancels_is_never_computed(server: Server, gate: Gate, stub: Any) -> None:
    rows, left = server.rows(), ended(server, "caller-left")
    with gate.shut():
        running = stub.ModelInfer.future(statuses.message(Ask()))
        server.await_busy()
        leaving = stub.ModelInfer.future(statuses.message(Ask()))
        staying = stub.ModelInfer.future(statuses.message(Ask()))
        server.await_busy(queued=2)
        leaving.cancel()
        server.await_busy(queued=1)
    assert running.result().outputs and staying.result().outputs
    server.await_idle()
    assert server.rows() == rows + 2
    assert ended(server, "caller-left") == left + 1


def test_who_leaves_a_stream_takes_its_requests_along(
    server: Server, gate: Gate, stub: Any
) -> None:
    rows, left = server.rows(), ended(server, "caller-left")
    with gate.shut():
        running = stub.ModelInfer.future(statuses.message(Ask()))
        server.await_busy()
        stream = stub.ModelStreamInfer(iter([statuses.message(Ask())] * 5))
        server.await_busy(queued=5)
        stream.cancel()
        until(lambda: ended(server, "caller-left") == left + 5, "all five are counted")
    assert running.result().outputs
    server.await_idle()
    assert server.rows() == rows + 1


def test_timeout_of_the_call_is_a_deadline(server: Server, gate: Gate, stub: Any) -> None:
    left = ended(server, "caller-left")
    # Nobody can keep it: refused at once, in words.
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(statuses.message(Ask(model="slow")), timeout=5)
    assert statuses.refusal(caught.value).problem["status"] == 422
    # One that was thought to be kept passes, and is counted as what it is.
    passed = ended(server, "deadline-passed")
    with pytest.raises(grpc.RpcError) as caught, gate.shut():
        stub.ModelInfer(statuses.message(Ask(model="stalls")), timeout=1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: ended(server, "deadline-passed") == passed + 1, "it is counted")
    assert ended(server, "caller-left") == left
    # The tightest deadline wins, whoever states it.
    with pytest.raises(grpc.RpcError) as caught:
        ask = statuses.message(Ask(parameters={"max_latency_ms": 1}))
        stub.ModelInfer(ask, timeout=PATIENCE_S)
    assert statuses.refusal(caught.value).problem["status"] == 422


@pytest.mark.parametrize("far", [False, True])
def test_message_over_the_limit(stub: Any, far: bool) -> None:
    rows = LIMIT_BYTES // 16 * (4 if far else 1)
    message = statuses.message(Ask(inputs=({**IMAGE, "shape": [rows, 4], "data": []},)))
    message.raw_input_contents.append(bytes(16 * rows))
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    if far:  # gRPC does not let it come so far as to be refused by us
        assert "larger than max" in caught.value.details()
    else:
        expected = f"body: expected at most {LIMIT_BYTES} bytes, got "
        assert statuses.refusal(caught.value).problem["detail"].startswith(expected)


def test_message_that_is_small_until_it_is_unpacked(server: Server, stub: Any) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    message = pb.ModelInferRequest(model_name="quick")
    message.raw_input_contents.append(bytes(32 << 20))
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert process.memory_info().rss - before < 16 << 20


@pytest.mark.parametrize(
    "raw", [b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x0f", b"\x00", bytes(100), b"\x0a\x03\xff\xfe\xfd"]
)
def test_what_is_no_message(channel: grpc.Channel, raw: bytes) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(METHOD)(raw)
    problem = statuses.refusal(caught.value).problem
    assert (problem["status"], problem["field"]) == (400, "body")
    assert problem["expected"] == "a message ModelInferRequest"


def test_a_stream_ends_at_what_is_no_message(channel: grpc.Channel) -> None:
    stream = channel.stream_stream(METHOD.replace("ModelInfer", "ModelStreamInfer"))
    good = statuses.message(Ask(model="quick")).SerializeToString()
    answers = stream(iter([good, b"\xff" * 10]))
    assert next(answers)
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert statuses.refusal(caught.value).problem["field"] == "body"


@pytest.mark.parametrize(
    ("raws", "contents", "field"),
    [
        ([bytes(15)], None, "raw_input_contents[0]"),
        ([bytes(16), bytes(16)], None, "raw_input_contents"),
        ([bytes(16)], "fp32_contents", "inputs[0].contents"),
        ([], "fp64_contents", "inputs[0].contents"),
        ([], None, "inputs[0].contents"),
    ],
)
def test_contents_that_do_not_fit(
    stub: Any, raws: list[bytes], contents: str | None, field: str
) -> None:
    message = statuses.message(Ask(model="quick", inputs=({**IMAGE, "data": []},)))
    message.raw_input_contents.extend(raws)
    if contents is not None:
        getattr(message.inputs[0].contents, contents).extend([0.0] * 4)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    problem = statuses.refusal(caught.value).problem
    assert (problem["status"], problem["field"]) == (400, field)
    assert problem["detail"].startswith(f"{field}: expected {problem['expected']}, got ")


def test_who_sends_too_slowly_is_cut_off(server: Server, channel: grpc.Channel) -> None:
    left = ended(server, "caller-left")

    def never() -> Iterator[bytes]:
        done.wait(PATIENCE_S)
        yield from ()

    done = threading.Event()
    call = channel.stream_unary(METHOD).future(never())
    try:
        with pytest.raises(grpc.RpcError) as caught:
            call.result(PATIENCE_S)
    finally:
        done.set()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details() == "the request did not arrive whole within 2 s"
    assert ended(server, "caller-left") <= left + 1


class Wire:
    """A way to the server that counts the bytes which come back."""

    def __init__(self, address: str) -> None:
        self.came = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        host, port = address.split(":")
        self._server = socket.create_connection((host, int(port)))

    def __enter__(self) -> Self:
        threading.Thread(target=self._carry, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._listener.close()

    def _carry(self) -> None:
        client, _ = self._listener.accept()
        threading.Thread(target=self._pump, args=(client, self._server), daemon=True).start()
        with client, contextlib.suppress(OSError):
            while some := self._server.recv(1 << 16):
                self.came += len(some)
                client.sendall(some)

    @staticmethod
    def _pump(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while some := client.recv(1 << 16):
                server.sendall(some)


def test_large_answers_are_compressed_for_who_asks(server: Server) -> None:
    rows = 2000
    image = {**IMAGE, "shape": [rows, 4], "data": []}
    message = statuses.message(Ask(model="quick", inputs=(image,)))
    message.raw_input_contents.append(bytes(16 * rows))
    with Wire(server.grpc_address) as wire, grpc.insecure_channel(wire.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        plain = stub.ModelInfer(message)
        whole = wire.came
        packed = stub.ModelInfer(message, metadata=[("accept-encoding", "br, gzip")])
        assert packed.raw_output_contents == plain.raw_output_contents
        assert wire.came - whole < 2000 < 12 * rows <= whole


def test_a_connection_that_idles_is_closed(channel: grpc.Channel, stub: Any) -> None:
    states: list[grpc.ChannelConnectivity] = []
    channel.subscribe(states.append)
    assert stub.ModelInfer(statuses.message(Ask(model="quick"))).outputs
    until(lambda: states[-1:] == [grpc.ChannelConnectivity.IDLE] and len(states) > 1, "closed")
    assert grpc.ChannelConnectivity.READY in states


def test_a_client_that_is_killed_is_noticed(server: Server, gate: Gate) -> None:
    left = ended(server, "caller-left")
    client = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, tritonclient.grpc as t, numpy as np\n"
            "c = t.InferenceServerClient(sys.argv[1])\n"
            "i = t.InferInput('image', [1, 4], 'FP32')\n"
            "i.set_data_from_numpy(np.zeros((1, 4), np.float32))\n"
            "while True:\n"
            "    c.infer('echo', [i])\n",
            server.grpc_address,
        ]
    )
    with gate.shut():
        try:
            server.await_busy()
        finally:
            client.kill()
            client.wait()
        until(lambda: ended(server, "caller-left") == left + 1, "it is noticed")
    server.await_idle()


def test_stop_lets_what_runs_finish_and_ends_idle_streams(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    write_variant(tmp_path / "models", "echo", "fp32", **gate.echo)
    with (
        Server(tmp_path / "models", max_batch=4, grpc_port=0) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        waiting: list[bool] = []

        def asked() -> Iterator[Any]:
            yield statuses.message(Ask())
            until(lambda: waiting, "the test lets go")

        try:
            with gate.shut():
                stream = stub.ModelStreamInfer(asked())
                server.await_busy()
                server.terminate()
                until(lambda: not server.listens(), "it takes nothing new")
            assert next(stream).infer_response.model_version == "fp32"
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            problem = statuses.refusal(caught.value).problem
            assert (problem["status"], problem["detail"]) == (503, "the server is stopping")
            assert server.process.wait(PATIENCE_S) == 0
        finally:
            waiting.append(True)


def test_port_in_use_is_told(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match="the server ended: 1") as caught:
            Server(tmp_path, grpc_port=port).__enter__()
        assert f"cannot listen on 127.0.0.1:{port}" in caught.value.__notes__[0]


@pytest.mark.skipif(usable_cores() < 2, reason="two workers need two cores")
def test_workers_share_the_port(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    with Server(tmp_path, workers=2, max_batch=4, grpc_port=0) as server:
        until(lambda: "\nready: http://" in server.log(), "all workers have settled")

        def answered() -> list[float]:
            return [
                server.metric("gearshift_requests_total", outcome="ok", worker=worker)
                for worker in ("0", "1")
            ]

        def both_have_answered() -> bool:
            # Each with a connection of its own: the system spreads those.
            own = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(server.grpc_address, options=own) as channel:
                GRPCInferenceServiceStub(channel).ModelInfer(statuses.message(Ask()))
            return min(answered()) > 0

        until(both_have_answered, "both workers have answered")
        assert server.log().count("grpc on") == 1


def test_without_its_packages_the_server_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_variant(tmp_path / "models", "echo", "fp32")
    missing = tmp_path / "missing" / "grpc"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ModuleNotFoundError('no grpc')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(missing.parent))
    with Server(tmp_path / "models", grpc_port=0) as server:
        assert server.infer().status_code == 200
        assert "grpc off: no grpc; pip install 'gearshift[grpc]'\n" in server.log()


def test_callers_that_leave_at_any_moment_leave_no_trace(server: Server, stub: Any) -> None:
    message = statuses.message(Ask(model="quick"))
    for number in range(400):
        call = stub.ModelInfer.future(message)
        leaves_s = time.monotonic() + (number % 40) * 1e-4
        while time.monotonic() < leaves_s:
            pass
        call.cancel()
    server.await_idle()
    # What is left in the log, the fixture looks at.


def test_no_more_connections_than_there_may_be(tmp_path: Path) -> None:
    """One too many is closed as it comes; those that are there, and HTTP, are not harmed."""
    write_variant(tmp_path, "echo", "fp32")
    with (
        Server(tmp_path, grpc_port=0, max_connections=3) as server,
        contextlib.ExitStack() as open_,
    ):
        host, _, port = server.grpc_address.rpartition(":")

        def connected() -> socket.socket:
            one = socket.create_connection((host, int(port)), PATIENCE_S)
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
            return open_.enter_context(one)

        def answered(one: socket.socket) -> bool:
            with contextlib.suppress(ConnectionError):
                return bool(one.recv(1))  # gRPC says its settings to whoever is let in
            return False

        served = [connected() for _ in range(3)]
        assert all(map(answered, served))
        assert not answered(connected())
        assert server.infer().status_code == 200
        served[0].close()
        until(lambda: answered(connected()), "there is room for another one")
