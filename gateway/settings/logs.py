"""The settings of logs and traces, which `gateway.settings.Settings` holds among the others."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class LogSettings(BaseSettings):
    """What is written of what happens, and where."""

    log_format: Literal["text", "json"] = Field(
        "text", description="What a line of the logs is: text for eyes, or JSON for machines."
    )
    log_file: Path | None = Field(
        None,
        description="The file that the log is appended to, opened again on SIGHUP; by default "
        "standard error.",
    )
    access_log: Literal["off", "errors", "all"] = Field(
        "off",
        description="Whether a line is written for each request to infer: for none, for those that "
        "were not answered, or for all.",
    )
    access_log_file: Path | None = Field(
        None,
        description="The file that the access log is appended to, opened again on SIGHUP; by "
        "default where the log goes.",
    )
    tracing: bool = Field(
        False,
        description="Send traces of requests by OpenTelemetry's protocol; where and of how many, "
        "the standard variables OTEL_... of the environment say.",
    )
