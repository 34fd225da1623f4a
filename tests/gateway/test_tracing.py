"""Stages from moments, what the environment may ask for, and nothing imported while off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.journal import Journal
from gateway.metrics import Metrics
from gateway.records import Records
from gateway.settings import Settings, SettingsError
from gateway.tracing.marks import Marks, Run
from gateway.tracing.phases import phases


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
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: expected .*, got '{value}'"):
        opened(tmp_path)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
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
