"""The open-loop generator, against a server that answers as it is told."""

from __future__ import annotations

import math
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import replay
from tests.bench.replay import Answer

_PAUSE = b"<pause>"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Number: %d\r\n\r\nok"


@contextmanager
def _server(answer: Callable[[int], bytes | None]) -> Iterator[tuple[str, int]]:
    """Answers the nth request with `answer(n)`, in pieces where it pauses; closes the connection
    where that is None."""
    count, lock = iter(range(1_000_000)), threading.Lock()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while True:
                length = 0
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                if not line:
                    return
                self.rfile.read(length)
                with lock:
                    said = answer(next(count))
                if said is None:
                    return
                for number, piece in enumerate(said.split(_PAUSE)):
                    time.sleep(0.02 if number else 0)
                    self.wfile.write(piece)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _run(address: tuple[str, int], due_s: list[float], **options: object) -> list[Answer]:
    request = replay.post(*address, "/", b"x" * 3000, {"Content-Type": "text/plain"})
    return replay.Replay(*address, request, **options).run(due_s)[0]  # type: ignore[arg-type]


def test_every_request_is_sent_when_it_is_due_and_answered_once() -> None:
    due_s = replay.arrivals_s(300, 0.5, seed=1)
    with _server(lambda number: _ANSWER % number) as address:
        answers = _run(address, due_s, keep_heads=True)
    assert [each.status for each in answers] == [200] * len(due_s)
    assert len({each.head for each in answers}) == len(due_s)
    start_s = answers[0].due_s - due_s[0]
    for answer, due in zip(answers, due_s, strict=True):
        assert answer.due_s == pytest.approx(start_s + due)
        assert answer.due_s <= answer.sent_s <= answer.done_s


def test_a_stall_is_counted_by_all_who_were_due_in_it() -> None:
    """One connection, and one stall of 0.3 s: a closed loop would count one slow answer."""

    def answer(number: int) -> bytes:
        if number == 10:
            time.sleep(0.3)
        return _ANSWER % number

    due_s = [0.005 * number for number in range(100)]
    with _server(answer) as address:
        answers = _run(address, due_s, most=1)
    slow = [each for each in answers if each.done_s - each.due_s > 0.1]
    assert len(slow) > 20
    told = replay.summary(answers, 1)
    assert told.errors == 0
    assert told.p99_ms > 200


def test_more_connections_are_opened_while_answers_wait() -> None:
    def answer(number: int) -> bytes:
        return _ANSWER % number

    due_s = [0.001 * number for number in range(50)]
    with _server(answer) as address:
        request = replay.post(*address, "/", b"x", {})
        _, opened = replay.Replay(*address, request, most=8).run(due_s)
    assert 1 <= opened <= 8


def test_refusals_and_lost_answers_are_errors() -> None:
    def answer(number: int) -> bytes | None:
        refused = b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"
        return refused if number % 2 else _ANSWER % number

    with _server(answer) as address:
        answers = _run(address, [0.01 * number for number in range(10)])
    assert sorted(each.status for each in answers) == [200] * 5 + [503] * 5
    assert replay.summary(answers, 1).errors == 5


def test_a_server_that_hangs_up_on_a_fresh_connection_is_no_answer() -> None:
    with _server(lambda _: None) as address:
        answers = _run(address, [0.0, 0.01])
    assert [each.status for each in answers] == [0, 0]
    assert replay.summary(answers, 1).errors == 2


def test_an_answer_that_never_comes_is_not_waited_for_for_ever() -> None:
    with _server(lambda number: _ANSWER % number if number else b"") as address:
        answers = _run(address, [0.0, 0.05], patience_s=0.3)
    assert sorted(each.status for each in answers) == [0, 200]
    lost = next(each for each in answers if each.status == 0)
    assert lost.done_s == math.inf
    assert replay.summary(answers, 1).p99_ms == math.inf


def test_chunked_answers_are_read_to_their_end() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n<pause>0\r\n\r\n"
    with _server(lambda _: chunked) as address:
        answers = _run(address, [0.0, 0.01, 0.02])
    assert [each.status for each in answers] == [200] * 3
    assert all(each.done_s - each.sent_s >= 0.02 for each in answers)


def test_answers_that_come_in_pieces_are_read_to_their_end() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-<pause>Length: 4\r\n\r\nab<pause>cd"
    with _server(lambda _: answer) as address:
        answers = _run(address, [0.0, 0.01, 0.02])
    assert [each.status for each in answers] == [200] * 3
    assert all(each.done_s - each.sent_s >= 0.04 for each in answers)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_percentile_is_a_value_that_enough_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = replay.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


@given(st.floats(10, 1000), st.integers(0, 1000))
def test_arrivals_come_in_order_and_within_the_time(rate: float, seed: int) -> None:
    due_s = replay.arrivals_s(rate, 2.0, seed)
    assert due_s == sorted(due_s) == replay.arrivals_s(rate, 2.0, seed)
    assert all(0 < at < 2.0 for at in due_s)
    assert abs(len(due_s) - 2 * rate) < 8 * math.sqrt(2 * rate) + 8
