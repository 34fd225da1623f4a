"""Settings: each documented, merged in the promised order, and refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import settings
from gateway.processes.cores import usable_cores
from gateway.settings import CONFIG_VARIABLE, PREFIX, Settings, SettingsError, load
from router.constraints import NONE, Floor


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)


def config(folder: Path, text: str) -> Path:
    path = folder / "gearshift.toml"
    path.write_text(text)
    return path


def test_every_setting_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = config(tmp_path, "port = 1\nmax_queue = 2\nmax_batch = 3")
    monkeypatch.setenv("GEARSHIFT_PORT", "10")
    monkeypatch.setenv("GEARSHIFT_MAX_QUEUE", "20")
    found = load({"port": 100, "max_batch": None}, file)
    assert (found.port, found.max_queue, found.max_batch) == (100, 20, 3)
    assert found.drain_seconds == Settings.model_fields["drain_seconds"].default


def test_the_file_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(config(tmp_path, "port = 7")))
    assert load().port == 7


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEARSHIFT_PORT", "")
    assert load().port == 8080


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "abc", "valid integer"),
        ("port", "70000", "65535"),
        ("latency_percentile", "90", "50, 95 or 99"),
        ("accuracy_margin", "nan", "finite"),
        ("usd_per_lane_hour", "-1", "greater than or equal to 0"),
        ("default_min_accuracy", "130%", "percentage"),
        ("default_max_latency_ms", "0", "greater than 0"),
        ("default_optimize", "speed", "'latency'"),
        ("policy", "chance", "gearshift"),
        ("model_weights", "digits", "dictionary"),
        ("model_weights", '{"digits": 0}', "greater than 0"),
        ("trust_store", "perhaps", "boolean"),
        ("lanes", "0", "greater than or equal to 1"),
        ("max_connections", "3000000000", "less than or equal to 1073741824"),
        ("admin_port", "on", "a port from 0 to 65535, or off"),
        ("database", "mysql://db/x", "a URL of SQLite or PostgreSQL"),
        ("max_header_bytes", "10", "1024"),
    ],
)
def test_a_bad_value_names_setting_source_what_came_and_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), value)
    with pytest.raises(SettingsError) as error:
        load()
    line = str(error.value)
    assert line.startswith(f"{name} (from {PREFIX}{name.upper()}): expected ")
    assert value in line
    assert said in line
    assert "\n" not in line


def test_the_password_of_a_database_is_not_told() -> None:
    with pytest.raises(SettingsError) as error:
        load({"database": "mysql://user:hidden@db/x"})
    assert "hidden" not in str(error.value)
    found = settings.shown(Settings(database="postgresql://user:hid:d@en@db/x"))
    assert found["database"] == "postgresql://user:***@db/x"
    assert settings.shown(Settings())["database"] is None


def test_the_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^max_batch \(from --max-batch\)"):
        load({"max_batch": 0})
    file = config(tmp_path, "max_batch = 0")
    with pytest.raises(SettingsError, match=r"^max_batch \(from .*gearshift\.toml\)"):
        load(config=file)


def test_an_unknown_key_of_the_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unknown setting 'prot'; there are access_log, "):
        load(config=config(tmp_path, "prot = 8080"))


def test_a_file_that_is_absent_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read: No such file"):
        load(config=tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match=r"gearshift\.toml: not TOML"):
        load(config=config(tmp_path, "port 8080"))


def test_without_defaults_of_the_operator_nothing_is_demanded() -> None:
    assert Settings().default_constraints == NONE
    assert Settings(default_min_accuracy=0.9).default_constraints.min_accuracy == Floor(0.9)


def test_as_many_lanes_as_fit_the_cores() -> None:
    assert Settings().lanes == usable_cores()
    assert Settings(threads_per_lane=1024).lanes == 1
    assert Settings(lanes=5, threads_per_lane=1024).lanes == 5


def test_a_quota_of_the_cgroup_counts(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    everything = usable_cores(tmp_path / "absent")
    for text, cores in (
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("max 100000", everything),
        ("nonsense", everything),
    ):
        quota.write_text(text)
        assert usable_cores(quota) == cores, text


def test_the_module_says_where_settings_come_from() -> None:
    assert settings.__doc__ is not None
    assert "Command line > environment > file > default" in settings.__doc__
