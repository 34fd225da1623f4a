"""The settings of workers, lanes, batches and what becomes of those that fail."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from gateway.processes.cores import usable_cores


class LaneSettings(BaseSettings):
    """What runs, and on how much of the machine."""

    threads_per_lane: int = Field(
        1, ge=1, le=1024, description="Threads that one batch runs on; cards were measured on 1."
    )
    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that share the port; the usable cores are divided among them.",
    )
    lanes: int = Field(
        default_factory=lambda known: max(1, usable_cores() // known["threads_per_lane"]),
        ge=1,
        le=1024,
        description="Execution slots of a worker, one batch at a time each; by default as many as "
        "fit its cores.",
    )
    lane_kind: Literal["thread", "process"] = Field(
        "thread",
        description="What a lane is: a thread of the server, or a process of its own, which an "
        "engine may crash or hang without harm to the others (Linux).",
    )
    batch_timeout_seconds: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="A lane that runs one batch for longer is given up: the variant is left alone "
        "for a while, and another takes the lane's place.",
    )
    breaker_failures: int = Field(
        3,
        ge=1,
        le=1000,
        description="Batches of a variant that fail in a row until it is left alone for a while; "
        "half of its last 20 do as well.",
    )
    breaker_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="How long a variant that failed is left alone before one batch tries it again; "
        "twice as long each time that it fails, up to a minute.",
    )
    max_batch: int = Field(32, ge=1, le=4096, description="Rows of one batch, at most.")
