"""Every setting of the server. Command line > environment > file > default.

A setting `max_queue` is `--max-queue` on the command line, `GEARSHIFT_MAX_QUEUE` in the
environment and `max_queue = 1024` in a TOML file, which `--config` or `GEARSHIFT_CONFIG` names. A
table is one in TOML, and JSON elsewhere.

    store       the store, and the server's own folder
    ports       where it listens, by what certificate, and whom it lets in
    lanes       workers, lanes and batches
    decisions   by what a variant is chosen
    logs        logs and traces
    limits      how much, and for how long
    types       what a setting's value may be
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gateway.settings.decisions import DecisionSettings
from gateway.settings.error import SettingsError
from gateway.settings.lanes import LaneSettings
from gateway.settings.limits import LimitSettings
from gateway.settings.logs import LogSettings
from gateway.settings.ports import PortSettings
from gateway.settings.store import StoreSettings
from gateway.settings.types import without_password
from gateway.store import urls

__all__ = ["CONFIG_VARIABLE", "PREFIX", "Settings", "SettingsError", "load", "shown"]

PREFIX = "GEARSHIFT_"
CONFIG_VARIABLE = PREFIX + "CONFIG"


# The last is the first that is shown.
class Settings(
    LimitSettings, DecisionSettings, LaneSettings, PortSettings, StoreSettings, LogSettings
):
    """What an operator decides. `Settings()` holds the defaults; `load` reads the sources."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is given: `load` merges the sources, so that an error can name its own."""
        return (init_settings,)


def load(options: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """The settings of this process.

    Args:
        options: what the command line says, by setting; None where it says nothing.
        config: a TOML file; by default the one that `GEARSHIFT_CONFIG` names, if any.

    Raises:
        SettingsError: one line that names the setting, its source, and what was expected.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    named = os.environ.get(CONFIG_VARIABLE)
    if config is None and named:
        config = Path(named)
    file = {} if config is None else _read(config)
    environment = EnvSettingsSource(Settings)()
    merged = {**file, **environment, **given}
    try:
        return Settings(**merged)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0])
        if name in given:
            source = "--" + name.replace("_", "-")
        elif name in environment:
            source = PREFIX + name.upper()
        else:
            source = str(config)
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(Settings.model_fields))
            raise SettingsError(f"{source}: unknown setting {name!r}; there are {known}") from error
        expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        came = merged[name]
        if name == "database":
            came = without_password(came)
        elif name == "models":
            came = urls.shown(str(came))
        raise SettingsError(f"{name} (from {source}): expected {expected}, got {came!r}") from error


def shown(settings: Settings) -> dict[str, Any]:
    """Every setting as JSON, without the password that a database's URL may hold."""
    found = settings.model_dump(mode="json")
    if settings.database is not None:
        found["database"] = without_password(settings.database)
    return found


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{config}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config}: not TOML: {error}") from error
