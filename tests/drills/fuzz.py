"""Fuzzing: `python -m tests.drills.fuzz`, or `make fuzz`.

Each kind of case goes to one door of the server: some to the functions behind it, some to a real
server. Nothing may come of any but an answer or a clear refusal: no 5xx (but 504 where the case
itself stated a deadline that then passed), no hang over a second, no crash. A case is its kind, its
seed and its number, so one that fails is run again by

    python -m tests.drills.fuzz --kinds KIND --seed SEED --case NUMBER
"""

from __future__ import annotations

import argparse
import gzip
import json
import socket
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import zstandard
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from gateway.http import codings
from gateway.wire import v2
from router import constraints
from router.errors import GearshiftError, InvalidRequest, TooLarge
from tests.drills import mutations
from tests.drills.mutations import DATATYPES
from tests.e2e.harness import Server
from tests.stores import write_variant

SLOW_S = 1.0
LIMIT_BYTES = 1 << 20
_PATH = "/v2/models/{model}/infer"


class Fault(Exception):
    """What a case must not lead to."""


Case = Callable[[Random], str]
"""Runs one case; returns what came of it, in a word."""


@dataclass
class Tally:
    """What came of the cases of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.outcomes.total()


def run(kind: str, case: Case, *, seed: int, numbers: range) -> Tally:
    """Run the cases of these numbers. One that is slow has to be so again, alone."""
    tally = Tally()
    for number in numbers:
        for attempt in (1, 2, 3):
            began_s = time.perf_counter()
            try:
                outcome = case(Random(f"{kind} {seed} {number}"))
            except GearshiftError as error:
                outcome = error.code
                if not isinstance(error, InvalidRequest | TooLarge):
                    tally.faults.append(f"{number}: {outcome}: {error}")
            except Exception as error:
                outcome = "fault"
                told = str(error) if isinstance(error, Fault) else traceback.format_exc()
                tally.faults.append(f"{number}: {told}")
            took_s = time.perf_counter() - began_s
            if took_s <= SLOW_S:
                break
            if attempt == 3:
                tally.faults.append(f"{number}: took {took_s:.1f} s")
        tally.slowest_s = max(tally.slowest_s, took_s)
        tally.outcomes[outcome] += 1
    return tally


# Behind the door: the functions that read what came.


def _headers(dice: Random) -> str:
    given = mutations.parameters(dice) if dice.random() < 0.5 else None
    constraints.parse(tuple(mutations.stated(dice)), given)
    return "read"


def _specs(datatype: str) -> tuple[v2.Inputs, Mapping[str, mutations.TensorSpec]]:
    spec = mutations.spec(datatype)
    return v2.Inputs([spec]), {"same": spec.model_copy(update={"name": "same"})}


_SPECS = {datatype: _specs(datatype) for datatype in DATATYPES}


def _body(dice: Random) -> str:
    """JSON whose members were tampered with."""
    datatype = dice.choice(DATATYPES)
    document, tail = mutations.request(dice, datatype)
    text = mutations.text_of(mutations.altered(dice, document))
    length = mutations.json_length(dice, len(text) if tail is not None else None)
    return _decoded(text + (tail or b""), length, datatype)


def _bytes(dice: Random) -> str:
    """A good body whose bytes were tampered with, binary tensors included."""
    datatype = dice.choice(DATATYPES)
    document, tail = mutations.request(dice, datatype)
    text = mutations.text_of(document)
    length = mutations.json_length(dice, len(text) if tail is not None else None)
    return _decoded(mutations.scrambled(dice, text + (tail or b"")), length, datatype)


def _binary(dice: Random) -> str:
    """A good document whose tensor's bytes were tampered with, sizes included."""
    datatype = dice.choice(DATATYPES)
    document, tail = mutations.request(dice, datatype)
    tail = mutations.scrambled(dice, tail or dice.randbytes(8))
    own = document["inputs"][0]
    own.pop("data", None)
    off = dice.choice((0, 0, 0, 1, -1, 4, 10**9, -(10**9), 2**63))
    own["parameters"] = {"binary_data_size": len(tail) + off}
    if dice.random() < 0.3:
        own["shape"] = [dice.choice((0, 1, 2, 10**9, 2**62, 2**63, 2**64)), 2]
    text = mutations.text_of(document)
    return _decoded(text + tail, b"%d" % len(text), datatype)


def _decoded(body: bytes, length: bytes | None, datatype: str) -> str:
    inputs, outputs = _SPECS[datatype]
    decoded = v2.decode(body, length, inputs, outputs)
    constraints.parse((), decoded.parameters)
    for name, tensor in decoded.inputs.items():
        if len(tensor) != decoded.rows or tensor.shape[1:] != (2,):
            raise Fault(f"{name} has shape {tensor.shape}, for {decoded.rows} rows")
    return "read"


def _coded(dice: Random) -> str:
    """Compressed bodies that were tampered with, bombs among them."""
    plain = dice.choice((b"{}", b"0" * 50_000, dice.randbytes(3000), b"0" * (3 << 20)))
    coding, packed = dice.choice(
        (
            (b"gzip", gzip.compress(plain, 1)),
            (b"deflate", zlib.compress(plain, 1)),
            (b"zstd", zstandard.ZstdCompressor(level=1).compress(plain)),
        )
    )
    if dice.random() < 0.8:
        packed = mutations.scrambled(dice, packed)
    if dice.random() < 0.1:
        coding = dice.choice((b"br", b"", b"gzip, gzip", b"\xff", b"zstd"))
    if len(codings.inflate(packed, coding, LIMIT_BYTES)) > LIMIT_BYTES:
        raise Fault("inflated beyond the limit")
    return "read"


def hypothesis_cases(count: int, seed: int) -> Tally:
    """Any JSON at all as a request, and text that hypothesis thinks of as headers."""
    tally = Tally()
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
        | st.sampled_from([*mutations.NAMES, *DATATYPES])
    )  # fmt: skip
    names = st.sampled_from(mutations.NAMES) | st.text(max_size=5)
    anything = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
        max_leaves=12,
    )
    tensor = st.fixed_dictionaries(
        {"name": st.just("given") | anything, "datatype": st.sampled_from(DATATYPES) | anything},
        optional={
            "shape": st.lists(st.integers(-1, 4), max_size=3) | anything,
            "data": anything,
            "parameters": st.dictionaries(names, anything, max_size=3),
        },
    )
    document = anything | st.fixed_dictionaries(
        {"inputs": st.lists(tensor, max_size=2)},
        optional={"parameters": anything, "outputs": anything, "id": anything},
    )
    headers = st.lists(
        st.tuples(st.sampled_from([*constraints.HEADERS, *constraints.ALIASES]), st.text()),
        max_size=3,
    )

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(document, headers, st.sampled_from(DATATYPES))
    def cases(document: object, headers: list[tuple[str, str]], datatype: str) -> None:
        began_s = time.perf_counter()
        try:
            constraints.parse(tuple(headers))
            outcome = _decoded(mutations.text_of(document), None, datatype)
        except InvalidRequest as error:
            outcome = error.code
        except Exception:
            outcome = "fault"
            tally.faults.append(f"{document!r} {headers!r}: {traceback.format_exc()}")
        tally.outcomes[outcome] += 1
        tally.slowest_s = max(tally.slowest_s, time.perf_counter() - began_s)

    cases()
    return tally


# At the door: a real server.


def store(models: Path) -> None:
    """A model of each datatype, whose one variant answers with what it was given."""
    for datatype in DATATYPES:
        spec = mutations.spec(datatype)
        write_variant(
            models,
            datatype.lower(),
            "fp32",
            inputs=(spec,),
            outputs=(spec.model_copy(update={"name": "same"}),),
            labels=("low", "high"),
            latency_ms_at_1=0.2,
            latency_ms_at_32=0.4,
            mirror=True,
        )


class Client:
    """A connection, made anew when it was closed, that says what came back."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._address = host, int(port)
        self._connection: socket.socket | None = None

    def ask(self, message: bytes, *, whole: bool) -> tuple[int, bytes]:
        """Status and body of the answer; status 0 where the server just closes.

        Args:
            whole: whether it is one whole request for certain. What is not is ended, so that the
                server does not wait for the rest.
        """
        if self._connection is None:
            self._connection = socket.create_connection(self._address)
        connection = self._connection
        connection.settimeout(0.02 if not whole else 10.0)
        come = b""
        try:
            connection.sendall(message)
            while not _complete(come):
                try:
                    got = connection.recv(1 << 16)
                except TimeoutError:
                    if connection.gettimeout() != 0.02:
                        raise Fault(f"nothing came back in 10 s: {message!r}") from None
                    connection.settimeout(10.0)
                    connection.shutdown(socket.SHUT_WR)
                    continue
                if not got:
                    break
                come += got
        except (ConnectionError, BrokenPipeError):
            pass
        if not whole or not _complete(come) or b"connection: close" in come.lower():
            self.close()
        if not come:
            return 0, b""
        head, _, body = come.partition(b"\r\n\r\n")
        return int(head[9:12]), body

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _complete(come: bytes) -> bool:
    head, ended, body = come.partition(b"\r\n\r\n")
    if not ended:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line[15:])
    return head[9:12] == b"100"


def _judged(status: int, body: bytes, sent: bytes) -> str:
    """The status as a word.

    Raises:
        Fault: it must not be, or its body is not what every refusal's is.
    """
    if status == 0:
        return "closed"
    if status >= 400:
        try:
            problem = json.loads(body)
            code = problem["code"]
            assert problem["status"] == status and problem["error"] == problem["detail"]
        except (ValueError, KeyError, TypeError, AssertionError):
            raise Fault(f"{status} with {body[:300]!r} for {sent[:2000]!r}") from None
        if status >= 500 and code != "deadline-passed":
            raise Fault(f"{status} {body[:300]!r} for {sent[:2000]!r}")
    return str(status)


def _post(path: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: fuzz", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def rest(client: Client) -> Case:
    """Requests that are HTTP, with tampered bodies and headers."""

    def case(dice: Random) -> str:
        datatype = dice.choice(DATATYPES)
        document, tail = mutations.request(dice, datatype)
        if dice.random() < 0.7:
            document = mutations.altered(dice, document)
        text = mutations.text_of(document)
        length = mutations.json_length(dice, len(text) if tail is not None else None)
        body = text + (tail or b"")
        headers = [] if length is None else [("Inference-Header-Content-Length",
                                              length.decode("latin-1"))]  # fmt: skip
        if dice.random() < 0.3:
            headers += [
                (name, "".join(c for c in value if c not in "\r\n\0"))
                for name, value in mutations.stated(dice)
            ]
        if dice.random() < 0.1:
            body = mutations.scrambled(dice, body)
        if dice.random() < 0.1:
            coding = dice.choice(("gzip", "zstd", "deflate", "br"))
            headers.append(("Content-Encoding", coding))
            body = mutations.scrambled(dice, gzip.compress(body, 1))
        if dice.random() < 0.05:
            headers.append(("Accept-Encoding", dice.choice(("gzip", "zstd;q=2", "*;q=0", ",;"))))
        model = datatype.lower() if dice.random() < 0.95 else dice.choice(
            ("nobody", "%2e%2e", "a%00b", "%ff", "fp32%2f..%2f..", "x" * 3000))  # fmt: skip
        path = _PATH.format(model=model)
        if dice.random() < 0.1:
            version = dice.choice(("fp32", "reference", "nobody", "%2e%2e", "%ff"))
            path = path.replace("/infer", f"/versions/{version}/infer")
        message = _post(path, headers, body)
        return _judged(*client.ask(message, whole=_is_whole(message)), message)

    return case


def _is_whole(message: bytes) -> bool:
    """A header that chance wrote may make it something else than it was meant to be."""
    return all(byte >= 0x20 or byte in b"\r\n\t" for byte in message.partition(b"\r\n\r\n")[0])


def paths(client: Client) -> Case:
    """Every other path, with tampered names, bodies and methods."""
    known = (
        "/v2", "/v2/health/live", "/v2/models/fp32", "/v2/models/fp32/versions/fp32",
        "/v2/models/fp32/ready", "/v2/models/fp32/config", "/v2/models/fp32/stats",
        "/v2/models/stats", "/v2/models/fp32/decide", "/v2/repository/index", "/metrics", "/",
        "/v2/repository/models/fp32/load", "/openapi.json", "/healthz", "/v2/models/fp32/infer",
    )  # fmt: skip

    def case(dice: Random) -> str:
        path = dice.choice(known)
        if dice.random() < 0.5:
            path = "".join(
                c if c.isalnum() or c in "/.-_~%?&=" else f"%{ord(c):02x}"
                for c in mutations.scrambled(dice, path.encode()).decode("latin-1")
            )
        method = dice.choice(("GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"))
        document, _ = mutations.request(dice, "FP32")
        body = mutations.text_of(mutations.altered(dice, document)) if method == "POST" else b""
        message = _post(path or "/", [], body).replace(b"POST", method.encode(), 1)
        status, answer = client.ask(message, whole=method != "HEAD")
        if method == "HEAD":
            return str(status) if status < 500 else _judged(status, answer, message)
        return _judged(status, answer, message)

    return case


def http(client: Client) -> Case:
    """Requests whose very bytes were tampered with: whatever a socket may bring."""

    def case(dice: Random) -> str:
        document, tail = mutations.request(dice, "FP32")
        text = mutations.text_of(document)
        headers = [("Gearshift-Min-Accuracy", "0.5"), ("Content-Type", "application/json")]
        if tail is not None:
            headers.append(("Inference-Header-Content-Length", str(len(text))))
        if dice.random() < 0.2:
            headers.append(("Transfer-Encoding", "chunked"))
        message = _post(_PATH.format(model="fp32"), headers, text + (tail or b""))
        head, _, body = message.partition(b"\r\n\r\n")
        if dice.random() < 0.8:
            head = mutations.scrambled(dice, head)
        else:
            body = mutations.scrambled(dice, body)
        message = head + b"\r\n\r\n" + body
        return _judged(*client.ask(message, whole=False), message)

    return case


def rpc(address: str, stack: ExitStack) -> Case:
    """Messages of gRPC: tampered fields, tampered bytes, tampered metadata."""
    import grpc
    import tritonclient.grpc as triton
    from tritonclient.grpc import service_pb2 as messages

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
                        made.parameters[key].CopyFrom(_parameter(messages, dice))
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

    del triton
    return case


def _parameter(messages: object, dice: Random) -> object:
    make = messages.InferParameter  # type: ignore[attr-defined]
    return dice.choice(
        (
            make(bool_param=True), make(int64_param=-(2**63)), make(int64_param=5),
            make(string_param="99%"), make(string_param="x" * 999), make(),
            make(double_param=1e308), make(double_param=float("nan")),
            make(uint64_param=2**64 - 1), make(string_param="cost"),
        )
    )  # fmt: skip


BEHIND: Mapping[str, tuple[Case, float]] = {
    "headers": (_headers, 0.16),
    "json": (_body, 0.24),
    "bytes": (_bytes, 0.16),
    "binary": (_binary, 0.12),
    "codings": (_coded, 0.02),
}
"""Cases of functions, each with its share of all."""
AT_THE_DOOR = {"rest": 0.12, "paths": 0.03, "http": 0.04, "grpc": 0.06}
_HYPOTHESIS = 0.05


@contextmanager
def doors(names: set[str]) -> Iterator[tuple[Server, dict[str, Case]]]:
    """A server, and the cases that go to it."""
    with ExitStack() as stack:
        models = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store(models)
        more = {"grpc_port": 0} if "grpc" in names else {}
        server = stack.enter_context(Server(models, max_body_bytes=LIMIT_BYTES, **more))
        cases: dict[str, Case] = {}
        for name, make in (("rest", rest), ("paths", paths), ("http", http)):
            client = Client(server.address)
            stack.callback(client.close)
            cases[name] = make(client)
        if "grpc" in names:
            cases["grpc"] = rpc(server.grpc_address, stack)
        yield server, cases


def fuzz(
    cases: int, seed: int, kinds: set[str] | None = None, only: int | None = None
) -> dict[str, Tally]:
    """Run that many cases in all; counts are printed as they come."""
    tallies: dict[str, Tally] = {}

    def note(kind: str, tally: Tally) -> None:
        tallies[kind] = tally
        outcomes = ", ".join(f"{name} {count:,}" for name, count in tally.outcomes.most_common())
        print(f"{kind}: {tally.cases:,} cases, slowest {tally.slowest_s * 1000:.0f} ms: {outcomes}",
              flush=True)  # fmt: skip
        for fault in tally.faults[:5]:
            print(f"  FAULT {kind} --seed {seed} --case {fault}", flush=True)

    def numbers(share: float) -> range:
        return range(only, only + 1) if only is not None else range(round(cases * share))

    for kind, (case, share) in BEHIND.items():
        if kinds is None or kind in kinds:
            note(kind, run(kind, case, seed=seed, numbers=numbers(share)))
    if kinds is None or "hypothesis" in kinds:
        note("hypothesis", hypothesis_cases(round(cases * _HYPOTHESIS), seed))
    at_the_door = AT_THE_DOOR.keys() & (AT_THE_DOOR if kinds is None else kinds)
    if at_the_door:
        with doors(set(at_the_door)) as (server, ready):
            for kind in sorted(at_the_door):
                tally = run(kind, ready[kind], seed=seed, numbers=numbers(AT_THE_DOOR[kind]))
                if server.process.poll() is not None:
                    tally.faults.append(f"?: the server ended: {server.log()[-2000:]}")
                note(kind, tally)
            server.await_idle()
            log = server.log()
            if "Traceback" in log:
                told = log[log.index("Traceback") :][:3000]
                tallies[kind].faults.append(f"?: in the server's log: {told}")
                print(told)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=210_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kinds", help="by comma; by default all")
    parser.add_argument("--case", type=int, help="this one alone")
    parsed = parser.parse_args()
    kinds = set(parsed.kinds.split(",")) if parsed.kinds else None
    print(f"seed {parsed.seed}")
    tallies = fuzz(parsed.cases, parsed.seed, kinds, parsed.case)
    faults = sum(len(tally.faults) for tally in tallies.values())
    print(f"{sum(tally.cases for tally in tallies.values()):,} cases, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
