"""The settings of limits: what may be held, how much may come, and how long anything may take."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class LimitSettings(BaseSettings):
    """How much, and for how long."""

    response_cache_mb: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Memory for answers that are given again to the same inputs, in MB, in each "
        "process; 0 keeps none.",
    )
    max_queue: int = Field(1024, ge=1, description="Requests that may wait for a lane.")
    max_body_bytes: int = Field(
        64 << 20, ge=1, description="The largest request body, in bytes; more is answered 413."
    )
    max_header_bytes: int = Field(
        64 << 10,
        ge=1024,
        description="The largest request line and headers together, in bytes; more is answered "
        "431, or 414 when the path is to blame.",
    )
    read_timeout_seconds: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a request may take from its first byte to its last, on the admin "
        "port each 64 KiB of its body; then 408.",
    )
    write_timeout_seconds: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a caller may leave an answer unread; a large one must be read at "
        "64 KiB in that time, or the connection is cut off.",
    )
    idle_timeout_seconds: float = Field(
        75.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a connection is kept after an answer, for the next request.",
    )
    max_connections: int | None = Field(
        None,
        ge=1,
        le=1 << 30,  # the most files that Linux lets a process have
        description="HTTP connections of one process, at most, and as many gRPC connections beside "
        "them; more are answered 503, or closed. By default those that its limit of open files "
        "leaves room for, three quarters of them for HTTP.",
    )
    memory_limit_mb: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Memory that loaded variants may take together, in MB, by their cards, on all "
        "lanes; what is wanted most stays loaded. By default no limit.",
    )
    residency_seconds: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Under a memory limit, how often to look whether other variants are wanted "
        "more now; what was loaded stays for three such times.",
    )
    watch_seconds: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="How often to look for variants that came into the store, were replaced in it "
        "or left it.",
    )
    notice_seconds: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="How long the server serves on, not ready any more, once it was told to stop: "
        "until whoever sends it requests has turned elsewhere. Part of drain_seconds.",
    )
    drain_seconds: float = Field(
        30.0,
        ge=0,
        allow_inf_nan=False,
        description="How long the server may take to stop; running requests have all but the last "
        "second.",
    )
