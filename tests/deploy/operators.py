"""What only operators may call on the ports that proxies stand before."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path

from starlette.routing import Route

from gateway.app import create_app
from gateway.settings import Settings
from gateway.trust.guard import scope_of
from tests.stores import write_variant

GRPC = tuple(
    f"/inference.GRPCInferenceService/RepositoryModel{what}" for what in ("Load", "Unload")
)


@cache
def paths() -> tuple[str, ...]:
    """Those of the public port, as its app has them, for a model `echo`; and the admin port's."""
    with tempfile.TemporaryDirectory() as folder:
        write_variant(Path(folder), "echo", "fp32")
        app = create_app(Settings(models=Path(folder), grpc_port=0, admin_port=0))
    routes = [one.path for one in app.routes if isinstance(one, Route)]
    named = [re.sub(r"\{[^}]*\}", "echo", path) for path in routes]
    return (*sorted({path for path in named if scope_of(path) == "admin"}), "/admin/state")
