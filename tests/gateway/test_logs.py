"""Lines of the log: what they look like, where they go, and what may be said."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
from pathlib import Path

import pytest

from gateway.logs.access import AccessLog
from gateway.logs.lines import JsonLines, TextLines, as_json, as_text, rfc3339
from gateway.logs.setup import start
from gateway.logs.sink import Sink
from gateway.messages import Origin, Trace
from gateway.recording import origins
from gateway.rpc import problems as rpc_problems
from gateway.settings import Settings, SettingsError
from gateway.wire import grpc_statuses, problems
from router.errors import Overloaded


def record(message: str = "it\nfailed", **more: object) -> logging.LogRecord:
    made = logging.LogRecord("gateway.x", logging.ERROR, "f", 1, message, None, None)
    made.created = 1_700_000_000.5
    for key, value in more.items():
        setattr(made, key, value)
    return made


def test_a_record_as_json_is_one_line_with_stable_keys() -> None:
    about = origins.logged(Origin("r-1", trace=Trace("ab" * 16, "cd" * 8, True)))
    try:
        raise ValueError("bad\udcff")
    except ValueError as error:
        caught = (type(error), error, error.__traceback__)
    line = JsonLines(3).format(record(exc_info=caught, **about))
    assert "\n" not in line
    said = json.loads(line)
    assert "ValueError: bad" in said.pop("exception")
    assert said == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "error",
        "logger": "gateway.x",
        "message": "it\nfailed",
        "worker": 3,
        "request_id": "r-1",
        "trace_id": "ab" * 16,
    }
    assert list(json.loads(JsonLines(None).format(record()))) == [
        "time", "level", "logger", "message"
    ]  # fmt: skip


def test_a_record_as_text() -> None:
    line = TextLines(1).format(record("broken", request_id="r-1"))
    assert re.fullmatch(
        r"[-0-9]+ [0-9:,]+ worker-1 ERROR gateway.x: broken \(request_id r-1\)", line
    )


def test_members_as_lines() -> None:
    members = {"plain": "a-b", "quoted": 'a "b"', "number": 1.5, "list": ["x"], "none": None}
    assert json.loads(as_json(members)) == members
    assert as_text(members) == (b'plain=a-b quoted="a \\"b\\"" number=1.5 list=["x"] none=null\n')
    assert rfc3339(0.9999) == "1970-01-01T00:00:00.999Z"


def test_a_file_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(path)
    sink.write(b"one\n")
    path.rename(tmp_path / "log.1")
    sink.write(b"two\n")
    sink.reopen()
    sink.write(b"three\n")
    assert (tmp_path / "log.1").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"
    assert path.stat().st_mode & 0o007 == 0
    path.unlink()
    path.mkdir()  # nothing to open: what is open is written to
    sink.reopen()
    sink.write(b"four\n")


def test_lines_in_a_pipe_stay_whole() -> None:
    """Writers of one pipe, as workers are, each with more than it takes at once."""
    reading, writing = os.pipe()
    kept = os.dup(2)
    os.dup2(writing, 2)
    try:
        sinks = [Sink(None), Sink(None)]
        batches = [
            b"".join(b"%d %d %s\n" % (who, n, b"x" * 90) for n in range(2000)) for who in (0, 1)
        ]
        threads = [
            threading.Thread(target=sink.write, args=(batch,))
            for sink, batch in zip(sinks, batches, strict=True)
        ]
        for thread in threads:
            thread.start()
        expected, came = sum(map(len, batches)), b""
        while len(came) < expected:
            came += os.read(reading, 1 << 16)
        for thread in threads:
            thread.join()
    finally:
        os.dup2(kept, 2)
        for descriptor in (kept, reading, writing):
            os.close(descriptor)
    lines = came.splitlines(keepends=True)
    assert [b"".join(x for x in lines if x[:1] == who) for who in (b"0", b"1")] == batches


def test_refusals_that_were_not_told_of_yet_are_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    refusal = Overloaded("the queue is full", retry_after_s=1.0)

    async def flood() -> None:
        log = AccessLog(Sink(path), json=True, worker=None)
        one_more = log.shed("echo", refusal, Origin("r-1"))
        for _ in range(3):
            one_more()
        # Nothing is awaited: the second after which they are told has no way to pass.
        assert log.close(patience_s=10.0) == 0

    asyncio.run(flood())
    (line,) = path.read_text().splitlines()
    said = json.loads(line)
    assert (said["requests"], said["outcome"], said["status"]) == (3, "overloaded", 429)


@pytest.mark.parametrize("level", ["debug", "info"])
def test_what_other_libraries_say_below_a_warning_is_not_said(
    tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    start(Settings(log_file=path), level)
    logging.getLogger("sqlalchemy.engine").info("a password")
    logging.getLogger("sqlalchemy.pool").warning("a warning")
    logging.getLogger("gateway.service").info("ours")
    assert re.findall(r": (.*)", path.read_text()) == ["a warning", "ours"]


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^log_file: .*/no/log cannot be opened: No such file"):
        start(Settings(log_file=tmp_path / "no" / "log"), "info")


@pytest.mark.parametrize(
    "given",
    ["", "a b", "a\nb", "é", 'a"b', "x" * 129, "{}", "a;b", "a,b", None],
)
def test_names_that_are_not_usable(given: str | None) -> None:
    assert origins.named(given) is None


def test_names_that_are() -> None:
    for given in ("7f3c6a1e-5b1e-4d3c-9d5f-0f1e2d3c4b5a", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "a/b:c=1"):
        assert origins.named(given) == given
    fresh = {origins.fresh() for _ in range(1000)}
    assert len(fresh) == 1000 and all(origins.named(name) for name in fresh)


def test_every_error_has_a_status_in_both_protocols() -> None:
    assert grpc_statuses.NAMES.keys() == problems.STATUSES.keys() == rpc_problems.STATUSES.keys()
