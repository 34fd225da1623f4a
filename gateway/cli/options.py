"""The server's settings as command-line options, made from `gateway.settings` itself.

A new setting is an option without a change here. Options are handed on as text, so that one place
validates them all and an error names where the value came from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.settings import CONFIG_VARIABLE, PREFIX, Settings

_PANELS = {
    "models": "Common",
    "store_cache": "Stores at URLs",
    "store_cache_mb": "Stores at URLs",
    "store_seconds": "Stores at URLs",
    "host": "Common",
    "port": "Common",
    "trust_store": "Common",
    "admin_host": "Administration",
    "admin_port": "Administration",
    "state": "Administration",
    "database": "Administration",
    "require_keys": "Administration",
    "tls_certificate": "Administration",
    "tls_key": "Administration",
    "tls_client_ca": "Administration",
    "verify_signatures": "Administration",
    "workers": "Lanes and batches",
    "lanes": "Lanes and batches",
    "threads_per_lane": "Lanes and batches",
    "max_batch": "Lanes and batches",
    "default_max_latency_ms": "For requests that state no constraint",
    "default_min_accuracy": "For requests that state no constraint",
    "default_max_cost_usd_per_million": "For requests that state no constraint",
    "default_optimize": "For requests that state no constraint",
    "latency_percentile": "Decisions",
    "accuracy_margin": "Decisions",
    "policy": "Decisions",
    "model_weights": "Decisions",
    "usd_per_lane_hour": "Decisions",
    "log_format": "Logs and traces",
    "log_file": "Logs and traces",
    "access_log": "Logs and traces",
    "access_log_file": "Logs and traces",
    "tracing": "Logs and traces",
}
_OTHER_PANEL = "Limits"

_METAVARS = {
    "models": "MODELS",
    "store_cache": "FOLDER",
    "admin_host": "ADDRESS",
    "admin_port": "PORT",
    "state": "FOLDER",
    "database": "URL",
    "log_format": "FORMAT",
    "log_file": "FILE",
    "access_log": "WHAT",
    "access_log_file": "FILE",
    "tls_certificate": "FILE",
    "tls_key": "FILE",
    "tls_client_ca": "FILE",
    "verify_signatures": "FILE",
    "host": "ADDRESS",
    "policy": "NAME",
    "model_weights": "JSON",
    "default_min_accuracy": "FLOOR",
}
_LEVELS = ("debug", "info", "warning", "error", "critical")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"A TOML file that holds any of these; or {CONFIG_VARIABLE}.",
        rich_help_panel="Common",
    ),
]


def _is_level(name: str) -> str:
    if name.lower() not in _LEVELS:
        raise typer.BadParameter(f"expected one of {', '.join(_LEVELS)}, got {name!r}")
    return name.lower()


LogLevelOption = Annotated[
    str,
    typer.Option(
        metavar="LEVEL",
        envvar=PREFIX + "LOG_LEVEL",
        show_envvar=False,
        callback=_is_level,
        help=f"What is logged, on stderr: {', '.join(_LEVELS)}.",
        rich_help_panel="Common",
    ),
]


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command whose last parameter is `**options` an option for each setting of `names`.

    Without names, for every one.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        made = [_parameter(name, Settings.model_fields[name]) for name in names or _all()]
        hints = {p.name: p.annotation for p in (*own, *made)}
        # What typer reads: the signature for the order, the annotations for the types.
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(kind=p.KEYWORD_ONLY) for p in (*made, *own)]
        )
        command.__annotations__ = {**hints, "return": None}
        return command

    return decorate


def _all() -> list[str]:
    """Every setting, those of one panel together, in the order of the panels."""
    order = list(_PANELS)
    return sorted(
        Settings.model_fields, key=lambda name: order.index(name) if name in order else len(order)
    )


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    is_flag = field.annotation is bool
    info = typer.Option(
        "--" + name.replace("_", "-"),
        metavar="" if is_flag else _METAVARS.get(name, "N"),
        help=f"{field.description}{_default(field)}",
        rich_help_panel=_PANELS.get(name, _OTHER_PANEL),
        show_default=False,
    )
    annotation: Any = Annotated[(bool if is_flag else str) | None, info]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _default(field: FieldInfo) -> str:
    if field.default is None or field.default is PydanticUndefined or field.annotation is bool:
        return ""
    return f" Default: {field.default}."
