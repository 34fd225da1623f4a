"""Traces: every published format by its content, and every refusal."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import math
import tarfile
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import GearshiftError
from router.simulate.trace import BadTrace, Counts, Instants
from router.simulate.trace.parse import Format, parse
from tests.laws import examples

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
AZURE_TIMES = (0.0, 4.314579, 4.541877)

MOONCAKE = "\n".join(
    json.dumps({"timestamp": ms, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]})
    for ms in (0, 0, 3000, 27482)
)
MOONCAKE_TIMES = (0.0, 0.0, 3.0, 27.482)


def tarred(mode: str, **files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("_txt", ".txt"))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def times(data: bytes | str, format: Format = "auto") -> tuple[float, ...]:
    found = parse("x", data, format=format)
    assert isinstance(found, Instants)
    assert found.name == "x"
    return found.times


def counts(data: bytes | str, format: Format = "auto") -> tuple[int, ...]:
    found = parse("x", data, format=format)
    assert isinstance(found, Counts)
    assert (found.name, found.bin_s) == ("x", 1.0)
    return found.counts


def refusal(data: bytes | str, format: Format = "auto") -> str:
    with pytest.raises(BadTrace) as caught:
        parse("load.csv", data, format=format)
    return caught.value.detail


@pytest.mark.parametrize("format", ["auto", "arrivals", "tokens"])
def test_a_log_with_token_counts(format: Format) -> None:
    assert times(AZURE, format) == AZURE_TIMES
    assert times(AZURE.replace("\n", "\r\n").encode(), format) == AZURE_TIMES
    assert times("\ufeff" + AZURE, format) == AZURE_TIMES
    assert times(b"\xef\xbb\xbf" + AZURE.encode(), format) == AZURE_TIMES


@pytest.mark.parametrize(
    ("first", "second", "length_s"),
    [
        ("2024-05-10T23:59:59Z", "2024-05-11T00:00:01.5Z", 2.5),
        ("2024-05-10 23:59:59.25+00:00", "2024-05-11 02:00:01.75+0200", 2.5),
        ("2024-05-10 23:59:59", "2024-05-11 00:00:01.500000000 UTC", 2.5),
        ("2024-05-10 23:59", "2024-05-11 00:01", 120.0),
        ("2024-05-10", "2024-05-11", 86_400.0),
        ("1715385599", "1715385600.5", 1.5),
        ("1715385599.1234567", "1715385600.6234567", 1.5),
    ],
)
def test_dates_with_times_and_plain_numbers(first: str, second: str, length_s: float) -> None:
    assert times(f"{first}\n{second}\n") == (0.0, length_s)
    assert times(f"id,TIMESTAMP\n7,{first}\n7,{second}\n") == (0.0, length_s)


def test_a_time_keeps_all_its_digits() -> None:
    assert times("timestamp\n1700158546.6805900\n1700158546.6805901\n") == (0.0, 1e-7)


@pytest.mark.parametrize("format", ["auto", "arrivals", "tokens"])
def test_json_lines(format: Format) -> None:
    assert times(MOONCAKE, format) == MOONCAKE_TIMES
    assert times("\n" + MOONCAKE.replace("\n", "\n\n") + "\n", format) == MOONCAKE_TIMES


def test_json_lines_of_other_names_and_kinds() -> None:
    assert times('{"id": 1, "arrival_s": 0.5}\n{"arrival_s": 2, "id": "\u2028"}') == (0.0, 1.5)
    stamped = '{"timestamp": "2024-01-01T00:00:00Z"}\n{"timestamp": "2024-01-01T00:00:02Z"}'
    assert times(stamped) == (0.0, 2.0)


@pytest.mark.parametrize(
    "data",
    [
        b"52 55 48\n",
        b"52,55,48",
        b"52\t55\t48",
        b"52\n55\n48\n",
        b"52 55\n48\n",
        bz2.compress(b"52 55 48"),
        gzip.compress(b"52\r\n55\r\n48\r\n", mtime=0),
        tarred("w", workload_txt=b"52 55 48"),
        tarred("w:gz", workload_txt=b"52 55 48"),
        tarred("w:bz2", workload_txt=b"52 55 48", **{"._workload_txt": b"\0\1"}),
        tarred("w", workload_txt=gzip.compress(b"52 55 48", mtime=0)),
        b"count\n52\n55\n48\n",
        b"second;requests\n0;52\n1;55\n2;48\n",
        b"timestamp,count\n2024-01-01 00:00:00,52\n2024-01-01 00:00:01,55\n2024-01-01 00:00:02,48",
    ],
)
def test_counts_per_second(data: bytes) -> None:
    assert counts(data) == (52, 55, 48)
    assert counts(data, "counts") == (52, 55, 48)


def test_bins_of_another_length() -> None:
    minutes = "t,count\n" + "".join(f"{60 * n},{n % 7}\n" for n in range(50))
    by_column = parse("x", minutes)
    assert isinstance(by_column, Counts)
    assert by_column.bin_s == 60.0
    said = parse("x", minutes, bin_s=30.0)
    assert isinstance(said, Counts)
    assert said.bin_s == 30.0
    assert by_column.rate_per_s == said.rate_per_s / 2


@pytest.mark.parametrize(
    "header", ["", "timestamp\n", "arrival_s\n", "time\n", "t\n", "Arrival Time (s)\n", "ts,id\n"]
)
def test_arrivals_with_and_without_a_header(header: str) -> None:
    assert times(header + "2.5\n2.5\n\n4\n") == (0.0, 0.0, 1.5)


def test_arrivals_in_other_units() -> None:
    assert times("arrival_ms\n10\n30\n") == (0.0, 0.02)
    assert times("timestamp_us\n10\n30\n") == (0.0, 2e-5)
    assert times("ts_ns\n10\n30\n") == (0.0, 2e-8)


def test_rows_without_a_header_begin_with_the_arrival() -> None:
    assert times("0.5,374,44\n2,396,109\n") == (0.0, 1.5)
    assert times("5,374,GET\n9,396,PUT\n") == (0.0, 4.0)
    bare = AZURE.split("\n", 1)[1]
    assert times(bare) == AZURE_TIMES


def test_whole_numbers_that_rise_are_arrivals_and_that_fall_are_counts() -> None:
    assert times("0\n3\n3\n9\n") == (0.0, 3.0, 3.0, 9.0)
    assert counts("0\n3\n2\n9\n") == (0, 3, 2, 9)
    assert counts("3\n3\n3\n") == (3, 3, 3)
    assert counts("0 3 3 9") == (0, 3, 3, 9)


def test_the_caller_settles_what_is_open() -> None:
    assert counts("0\n3\n3\n9\n", "counts") == (0, 3, 3, 9)
    assert counts("load\n5\n3\n", "counts") == (5, 3)
    assert counts("5.0\n3.000e+00\n", "counts") == (5, 3)
    assert times("0 3 3 9", "arrivals") == (0.0, 3.0, 3.0, 9.0)
    assert times("load\n3\n5\n", "arrivals") == (0.0, 2.0)
    assert times("time,count\n3,0\n5,0\n", "arrivals") == (0.0, 2.0)


TIMES = (
    "one of timestamp, arrival, arrivals, arrival_time, arrival_timestamp, arrived_at, time, "
    "datetime, date, ts, t, start_time, start_timestamp, request_time (in seconds, or ending in "
    "_s, _ms, _us, _ns)"
)
COUNTS = "one of count, counts, requests, request_count, num_requests"
MOMENT = "a number of seconds, or a date and a time"
WHOLE = "a whole number of requests, 0 or more, of 15 digits at most"


@pytest.mark.parametrize(
    ("data", "place", "expected", "received"),
    [
        ("", "content", "at least two arrivals, or counts", "nothing"),
        (b" \n\n", "content", "at least two arrivals, or counts", "nothing"),
        (",,\n,,\n", "content", "at least two arrivals, or counts", "nothing but delimiters"),
        (
            "timestamp\n",
            "arrivals",
            "arrivals at two instants at least, for one has no rate",
            "none",
        ),
        (
            "12.5",
            "arrivals",
            "arrivals at two instants at least, for one has no rate",
            "1 at one instant",
        ),
        (
            "t\n3\n3\n",
            "arrivals",
            "arrivals at two instants at least, for one has no rate",
            "2 at one instant",
        ),
        ("count\n", "count", "counts with at least one above 0", "none"),
        ("0 0 0", "count", "counts with at least one above 0", "3 zeros"),
        ("0\n0\n", "count", "counts with at least one above 0", "2 zeros"),
        (
            "t,id\n1.5,a\n1.25,b\n",
            "line 3: t",
            "no time before 1.5 of line 2",
            "1.25",
        ),
        (
            "1.5\n\n1.25\n",
            "line 3: arrival",
            "no time before 1.5 of line 1, unless format is counts",
            "1.25",
        ),
        (
            MOONCAKE + '\n{"timestamp": 5}',
            "line 5: timestamp",
            "no time before 27482 of line 4",
            "5",
        ),
        ("t\n-1\n2\n", "line 2: t", "0 or more", "-1"),
        ('{"t": -1}', "line 1: t", "0 or more", "-1"),
        ("5\n3\n-1\n", "line 3: count", "0 or more", "-1"),
        ("5 3 -1", "line 1: count 3", "0 or more", "-1"),
        ("count\n5\n3.5\n", "line 3: count", WHOLE, "3.5"),
        ("count\n5\n1000000000000000\n", "line 3: count", WHOLE, "1000000000000000"),
        ("count\n5\nmany\n", "line 3: count", WHOLE, "many"),
        ("t,id\n1,a\n,b\n", "line 3: t", "a value in every row", "nothing"),
        ("id,t\na,1\nb\n", "line 3: t", "a value in every row", "nothing"),
        ("id,count\na,1\nb\n", "line 3: count", "a value in every row", "nothing"),
        ("5,,3", "line 1: arrival", MOMENT, "nothing"),
        ('{"t": 1}\n{"id": 2}', "line 2: t", "a value on every line", "nothing"),
        ('{"t": 1}\n{"t": null}', "line 2: t", "a value on every line", "nothing"),
        ("0.5\nsoon\n", "line 2: arrival", MOMENT, "soon"),
        ("0.5\n1_000\n", "line 2: arrival", MOMENT, "1_000"),
        ("0.5\n٣\n", "line 2: arrival", MOMENT, "٣"),
        ('{"t": true}', "line 1: t", MOMENT, "True"),
        ("nan\n1\n", "line 1: arrival", "a finite number", "nan"),
        ("0.5\ninf\n", "line 2: arrival", "a finite number", "inf"),
        ("0.5\n1e999\n", "line 2: arrival", "a finite number", "1e999"),
        ('{"t": NaN}', "line 1: t", "a finite number", "nan"),
        ("count\nNaN\n", "line 2: count", "a finite number", "NaN"),
        (
            "t\n2024-02-30 00:00:00\n",
            "line 2: t",
            "a date and a time (day is out of range for month)",
            "2024-02-30 00:00:00",
        ),
        (
            "id,size\n1,2\n",
            "line 1: header",
            f"a column of time ({TIMES}) or of counts ({COUNTS})",
            "id,size",
        ),
        ('{"id": 1}', "line 1: keys", f"a key of time ({TIMES})", "id"),
        ('{"t": 1}\n[2]', "line 2: line", "one JSON object on each line", "[2]"),
        (
            "t,count\n0,5\n1,6\n3,7\n",
            "line 4: t",
            "a bin 1 s later than 1",
            "3",
        ),
        ("t,count\n1,5\n1,6\n", "line 3: t", "a bin later than 1", "1"),
        (
            b"0.5\n\xff\n",
            "line 2: content",
            "text in UTF-8, plain or by gzip or bzip2",
            "byte 0xff",
        ),
        (tarred("w"), "archive", "exactly one file", "files none"),
        (
            tarred("w:gz", a=b"1", b=b"2"),
            "archive",
            "exactly one file",
            "files a, b",
        ),
    ],
)  # fmt: skip
def test_a_refusal_names_place_expected_and_received(
    data: bytes | str, place: str, expected: str, received: str
) -> None:
    assert refusal(data) == f"load.csv: {place}: expected {expected}, got {received!r}"


@pytest.mark.parametrize(
    ("data", "format", "detail"),
    [
        ("1\n2\n", "tokens", f"line 1: header: expected a header with a column of time ({TIMES}), "
         "or JSON lines, got '1'"),
        ("id\n2\n", "tokens", f"line 1: header: expected a column of time ({TIMES}), got 'id'"),
        ("id,t\n2,2\n", "counts",
         f"line 1: header: expected a column of counts ({COUNTS}), got 'id,t'"),
        ("id,count\n2,2\n", "arrivals",
         f"line 1: header: expected a column of time ({TIMES}), got 'id,count'"),
        ("1,", "counts", f"line 1: count 2: expected {WHOLE}, got 'nothing'"),
        (MOONCAKE, "counts", "line 1: format: expected counts, as format says, got 'JSON lines'"),
        ("1.5\n1.25\n", "arrivals", "line 2: arrival: expected no time before 1.5 of line 1, got "
         "'1.25'"),
        ("1", "csv", "format: expected one of auto, arrivals, counts, tokens, got 'csv'"),
    ],
)  # fmt: skip
def test_content_that_is_not_of_the_format_said(data: str, format: Format, detail: str) -> None:
    assert refusal(data, format) == f"load.csv: {detail}"


@pytest.mark.parametrize("bin_s", [0.0, -1.0, math.nan, math.inf])
def test_the_length_of_a_bin_is_positive(bin_s: float) -> None:
    with pytest.raises(BadTrace, match=r"^x: bin_s: expected a positive number of seconds, got "):
        parse("x", "1 2", bin_s=bin_s)


TAR = tarred("w:bz2", workload_txt=b"52 55 48" * 500)


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (TAR[:100], "load.csv: archive: expected whole gzip or bzip2 data, got "),
        (
            gzip.compress(b"1 2 3", mtime=0)[:-6],
            "load.csv: archive: expected whole gzip or bzip2 data, got",
        ),
        (b"\x1f\x8b\x08" + bytes(20), "load.csv: archive: expected whole gzip or bzip2 data, got "),
        (tarred("w", a=b"5 4" * 500)[:700], "load.csv: archive: expected text, or a tar of one te"),
        (bytes(300), "load.csv: archive: expected text, or a tar of one text file; gzip or bzip2"),
        ("1 2".encode("utf-16"), "load.csv: archive: expected text, or a tar of one text file; "),
        ('{"t": 1', "load.csv: line 1: line: expected one JSON object on each line (Expecting"),
        ("[" * 9 + "{" * 9, "load.csv: line 1: header: expected a column of time"),
        ('t,id\n1,"a', "load.csv: line 2: row: expected values cut by ',', got 'unexpected end"),
    ],
)
def test_what_cannot_be_read(data: bytes | str, start: str) -> None:
    assert refusal(data).startswith(start)


def test_an_error_is_one_of_the_tree_with_its_parts() -> None:
    with pytest.raises(GearshiftError) as caught:
        parse("load.csv", "t\n-1\n")
    assert caught.value.code == "bad-trace"
    assert caught.value.members == {
        "trace": "load.csv",
        "line": 2,
        "field": "t",
        "received": "-1",
        "expected": "0 or more",
    }


texts = st.lists(
    st.sampled_from(
        [
            *("1", "-2", "3.5", "1e9999", "1e-9999", "9" * 30, "nan", "t", "count", "x"),
            *("2024-01-01 00:00:00", "0001-01-01T00:00:00+01:00", '{"t":', "}", "[", "\0", "é"),
            *(",", ";", "\t", " ", "\n", "\r\n", "\r", '"', "\u2028"),
        ]
    ),
    max_size=20,
).map("".join)


formats = st.sampled_from(get_args(Format))


@given(st.one_of(texts, texts.map(str.encode), st.binary(max_size=200)), formats)
@examples(500)
def test_any_input_is_a_trace_or_a_refusal(data: bytes | str, format: Format) -> None:
    try:
        found = parse("x", data, format=format)
    except BadTrace as error:
        assert error.detail.startswith("x: ")
        return
    if isinstance(found, Instants):
        assert found.times[0] == 0 < found.times[-1] < math.inf
        assert list(found.times) == sorted(found.times)
    else:
        assert any(found.counts)
        assert min(found.counts) >= 0


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_what_was_written_is_read(gaps: list[float]) -> None:
    written = [sum(gaps[:n]) for n in range(1, len(gaps) + 1)]
    if written[-1] == written[0]:
        return
    read = times("arrival_s\n" + "".join(f"{time!r}\n" for time in written))
    first = Decimal(repr(written[0]))
    assert read == tuple(float(Decimal(repr(time)) - first) for time in written)
