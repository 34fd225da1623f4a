"""Stages from moments, what the environment may ask for, and nothing imported while off."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.journal import Journal
from gateway.metrics import Metrics
from gateway.recording.records import Records
from gateway.settings import Settings, SettingsError
from gateway.tracing import environment
from gateway.tracing.marks import Marks, Run
from gateway.tracing.phases import phases
from tests.e2e.harness import PATIENCE_S
from tests.e2e.test_tls import Authority
from tests.stores import write_variant


def marks(**moments: float) -> Marks:
    return Marks("/x", 1, 2, 0, "", came_s=10.0, **moments)


def run(started_s: float, finished_s: float) -> Run:
    return Run("m", "v", 0, 1, 1, started_s, [], finished_s)


def told(found: Marks, ended_s: float) -> list[tuple[str, float, float]]:
    return [(each.name, each.start_s, each.end_s) for each in phases(found, ended_s)]


def test_stages_follow_one_another() -> None:
    whole = marks(received_s=9.0, parsed_s=11.0, routed_s=12.0)
    whole.runs = [run(13.0, 15.0)]
    assert told(whole, 16.0) == [
        ("receive", 9.0, 11.0),
        ("route", 11.0, 12.0),
        ("queue", 12.0, 13.0),
        ("infer", 13.0, 15.0),
        ("respond", 15.0, 16.0),
    ]


def test_a_request_that_ran_again_was_queued_twice() -> None:
    whole = marks(received_s=10.0, parsed_s=11.0, prepared_s=11.5, routed_s=12.0)
    whole.runs = [run(13.0, 15.0), run(16.0, 17.0)]
    names = [name for name, *_ in told(whole, 18.0)]
    assert names == ["receive", "prepare", "route", "queue", "infer", "queue", "infer", "respond"]


def test_one_that_ended_sooner_ends_in_its_stage() -> None:
    assert told(marks(), 12.0) == [("receive", 10.0, 12.0)]
    assert told(marks(received_s=10.0, parsed_s=11.0), 12.0)[1:] == [("route", 11.0, 12.0)]
    queued = marks(received_s=10.0, parsed_s=11.0, routed_s=11.5)
    assert told(queued, 12.0)[2:] == [("queue", 11.5, 12.0)]
    queued.runs = [run(11.75, 0.0)]  # it runs still
    assert told(queued, 12.0)[2:] == [("queue", 11.5, 11.75), ("infer", 11.75, 12.0)]


def test_a_lane_may_be_quicker_than_the_note_that_it_was_queued() -> None:
    quick = marks(received_s=10.0, parsed_s=11.0, routed_s=13.0)
    quick.runs = [run(12.0, 12.5)]
    assert [end for *_, end in told(quick, 14.0)] == [11.0, 13.0, 13.0, 13.0, 14.0]


def everything(model: str, variant: str | None = None) -> bool:
    return bool(model) or variant is None


def opened(models: Path) -> Records:
    settings = Settings(models=models, tracing=True)
    return Records(settings, Journal(Metrics()), everything, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_TRACES_SAMPLER_ARG", "some"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "notaurl"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://collector"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:port/v1/traces"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nope"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", __file__),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/nope"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "brotli"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_SCHEDULE_DELAY", "99999999999999"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "9" * 5000),
        ("OTEL_TRACES_SAMPLER", " traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", " "),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1.5"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "none"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "unset"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://ex ample.com:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318 "),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://..:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a..b:1/"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a<b/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10000"),  # it would be milliseconds elsewhere
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "nan"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: expected .*, got {re.escape(repr(value))}"):
        opened(tmp_path)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "swordfish"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b, x key=swordfish"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-key=swordfish%0D%0Ax-other=1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x%0Akey=swordfish"),
        ("OTEL_EXPORTER_OTLP_HEADERS", 'x-key="swordfish"'),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Content-Length=swordfish"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,transfer%2Dencoding=swordfish"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://me:swordfish@collector?key=swordfish"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector?key=swordfish"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector#swordfish"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:sword?x=swordfish@collector"),
        ("OTEL_RESOURCE_ATTRIBUTES", "swordfish"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,=swordfish"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=swordfish\udcff"),
        ("OTEL_SERVICE_NAME", "swordfish\udcff"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/swordfish"),
    ],
)
def test_what_may_be_a_secret_is_refused_without_repeating_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: expected ") as caught:
        opened(tmp_path)
    assert "swordfish" not in str(caught.value)


def test_what_is_offered_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("gateway")
    for name, value in {
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",  # that of traces counts
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "notaurl",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b=c, d = e%20f,g=,",
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "9",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": " 64 ",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://me:swordfish@[::1]:4318/v1/traces?key=1",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20sword=fish, x-tenant=a/b c,",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(key),
        "OTEL_BSP_MAX_QUEUE_SIZE": "64",
    }.items():
        monkeypatch.setenv(name, value)
    assert environment.numbers() == {
        environment.QUEUE: 64,
        environment.BATCH: 512,
        environment.DELAY: 5000,
    }
    assert environment.limits() == environment.Limits(attributes=9, letters=None, links=128)


@pytest.mark.parametrize(
    "url",
    ["http://otel_collector:4318/", "http://[fe80::1%25eth0]:4318", "https://bücher.example"],
)
def test_addresses_that_are(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    environment.numbers()


def test_what_the_library_itself_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "nobody")
    with pytest.raises(SettingsError, match=r"^tracing: OpenTelemetry does not begin .*'nobody'"):
        opened(tmp_path)


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.tracing.tracer", None)
    with pytest.raises(SettingsError, match=r"^tracing: expected the extra `tracing`"):
        opened(tmp_path)


def test_nothing_of_it_is_imported_while_it_is_off() -> None:
    # FastAPI imports the API, which does nothing without the rest.
    script = (
        "import sys, gateway.app, gateway.rpc.server\n"
        "ours = 'opentelemetry.sdk', 'opentelemetry.exporter', 'gateway.tracing.tracer'\n"
        "assert not [name for name in sys.modules if name.startswith(ours)]"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_is_read_as_the_library_is_imported_is_refused_before(tmp_path: Path) -> None:
    write_variant(tmp_path, "echo", "fp32")
    ended = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "serve", "--models", tmp_path, "--tracing"],
        env={**os.environ, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 2
    assert "error: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: expected a whole number" in ended.stderr
    assert "Traceback" not in ended.stderr
