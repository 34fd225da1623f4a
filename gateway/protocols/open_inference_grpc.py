"""The Open Inference Protocol v2 over gRPC, on a port of its own: see `gateway.rpc`.

    inference.GRPCInferenceService
        ServerLive, ServerReady, ServerMetadata, ModelReady, ModelMetadata, ModelInfer
    and Triton's extensions of it
        ModelStreamInfer, ModelConfig, ModelStatistics,
        RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload

Constraints are metadata or parameters, in the same names as over REST. The port is printed at start
as "grpc on HOST:PORT".
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager

from gateway.processes import ports
from gateway.protocols import Parts


def listen(parts: Parts) -> AbstractAsyncContextManager[None]:
    """Serve gRPC, unless it is off or its packages are not installed.

    Raises:
        gateway.processes.ports.PortUnusable: the port cannot be listened on.
    """
    settings = parts.settings
    port = settings.grpc_port
    if port is None:
        port = settings.port + 1 if settings.port else 0
    if port == "off":
        return contextlib.nullcontext()
    try:
        from gateway.rpc import server
    except (ImportError, RuntimeError) as error:  # the latter: versions that do not fit
        why = str(error).strip().partition("\n")[0]
        print(f"grpc off: {why}; pip install 'gearshift[grpc]'", flush=True)
        return contextlib.nullcontext()
    shared = parts.place is not None
    if port and not shared:
        # gRPC opens its port when the loop runs; one in use is told now.
        ports.bind(settings.host, port).close()
    return server.serving(
        parts.service, parts.journal, parts.access, settings, port, shared=shared, tls=parts.tls
    )
