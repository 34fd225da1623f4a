"""The example files say only what the code knows: each setting exists, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway import settings
from gateway.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = DEPLOY / "gearshift.toml"


def test_prometheus_scrapes_the_default_address() -> None:
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
    defaults = Settings()
    assert f'"{defaults.host}:{defaults.port}"' in text
    assert "metrics_path: /metrics" in text


def _clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Settings.model_fields, "config"):
        monkeypatch.delenv(settings.PREFIX + name.upper(), raising=False)


def test_the_example_settings_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    _clear(monkeypatch)
    assert settings.load(config=EXAMPLE) == Settings()


def test_every_setting_is_in_the_example_with_its_meaning() -> None:
    text = EXAMPLE.read_text("utf-8")
    said = " ".join(re.sub(r"^#+ ?", "", text, flags=re.MULTILINE).split())
    for name, field in Settings.model_fields.items():
        assert re.search(rf"^(# )?{name} = ", text, re.MULTILINE), name
        assert field.description and field.description in said, name


def test_what_is_commented_out_loads_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _clear(monkeypatch)
    text = re.sub(r"^# (\w+ = )", r"\1", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)
    everything = tmp_path / "all.toml"
    everything.write_text(text, encoding="utf-8")
    assert settings.load(config=everything).model_fields_set == set(Settings.model_fields)
