"""The gRPC port: opened with the server's loop, closed when what runs has ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import AsyncIterator
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from gateway.journal import Journal
from gateway.processes import open_files
from gateway.processes.ports import PortUnusable
from gateway.rpc.calls import Call, Frame, Limits
from gateway.rpc.infer import Infer
from gateway.rpc.models import Models
from gateway.rpc.stream import Streams
from gateway.service import Service
from gateway.settings import Settings
from gateway.trust.access import Access
from gateway.trust.tls import Tls

SERVICE = "inference.GRPCInferenceService"
_CORE_LOG = "grpc._cython.cygrpc"

# How far over the limit a message may be for its refusal to be in our words; one that is longer is
# cut off by gRPC as soon as it says its length.
_READABLE_BYTES = 1 << 20
# How long a call that was answered may take to be read to its end when the server stops.
_ENDING_S = 2.0
# A peer that is silent for a minute is asked whether it is there, and has a third of one to say so.
_PING_AFTER_MS, _PONG_WITHIN_MS = 60_000, 20_000
# What an option of gRPC can hold. No message is larger, and longer times are for ever.
_MOST = (1 << 31) - 1
# Clients may ask us this often; by default gRPC calls more than one in five minutes abuse.
_PINGED_MS = 10_000


def handlers(
    service: Service, journal: Journal, access: Access, settings: Settings
) -> tuple[dict[str, Any], Infer, Streams]:
    """Every method by its name, and what of them must be told to stop.

    Of Triton's extensions, shared memory, tracing and log settings are not offered.
    """
    infer = Infer(service, journal)
    streams = Streams(infer, access, journal)
    models = Models(service, journal.metrics.statistics.of, settings.max_batch)
    frame = Frame(access, journal, Limits(settings.max_body_bytes, settings.read_timeout_seconds))

    async def one(message: Any, call: Call) -> Any:
        answered = await infer(message, call.asked(message.id))
        call.usd = answered.usd
        call.say(answered.said)
        return answered.message

    methods = {
        "ServerLive": frame.unary(pb.ServerLiveRequest, None, models.live),
        "ServerReady": frame.unary(pb.ServerReadyRequest, None, models.ready),
        "ServerMetadata": frame.unary(pb.ServerMetadataRequest, "read", models.server_metadata),
        "ModelReady": frame.unary(pb.ModelReadyRequest, "read", models.model_ready),
        "ModelMetadata": frame.unary(pb.ModelMetadataRequest, "read", models.model_metadata),
        "ModelConfig": frame.unary(pb.ModelConfigRequest, "read", models.model_config),
        "ModelStatistics": frame.unary(pb.ModelStatisticsRequest, "read", models.model_statistics),
        "RepositoryIndex": frame.unary(pb.RepositoryIndexRequest, "read", models.repository_index),
        "RepositoryModelLoad": frame.unary(
            pb.RepositoryModelLoadRequest, "admin", models.repository_load
        ),
        "RepositoryModelUnload": frame.unary(
            pb.RepositoryModelUnloadRequest, "admin", models.repository_unload
        ),
        "ModelInfer": frame.unary(pb.ModelInferRequest, "infer", one),
        "ModelStreamInfer": frame.stream(streams),
    }
    for name in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name:
        methods.setdefault(name, frame.missing(name))
    return methods, infer, streams


@contextlib.asynccontextmanager
async def serving(
    service: Service,
    journal: Journal,
    access: Access,
    settings: Settings,
    port: int,
    *,
    shared: bool,
    tls: Tls | None,
) -> AsyncIterator[None]:
    """Serve on `port` of the settings' host meanwhile.

    Args:
        port: 0 for a free one.
        shared: other processes of this server serve the same port.

    Raises:
        gateway.processes.ports.PortUnusable: it cannot be listened on.
    """
    methods, infer, streams = handlers(service, journal, access, settings)
    logging.getLogger(_CORE_LOG).addFilter(_worth_saying)
    server = grpc.aio.server(options=_options(settings, shared))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        if tls is None:
            port = server.add_insecure_port(f"{host}:{port}")
        else:
            port = server.add_secure_port(f"{host}:{port}", _credentials(tls))
    except RuntimeError as error:
        raise PortUnusable(f"cannot listen on {host}:{port} for gRPC: {error}") from error
    await server.start()
    print(f"grpc on {host}:{port}", flush=True)

    async def close() -> None:
        await service.closing.wait()
        # Nothing new is taken, each connection is told so, and what runs is finished.
        await server.stop(settings.drain_seconds)

    closing = asyncio.create_task(close())
    try:
        yield
    finally:
        closing.cancel()
        infer.stopping = True
        streams.stop()
        await server.stop(_ENDING_S)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """What `tls` says, asked again before each handshake."""
    known = tls.reloads

    def configuration() -> Any:
        key, chain, authorities = tls.pem()
        return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)

    def changed() -> Any:
        nonlocal known
        if known == tls.reloads:
            return None
        known = tls.reloads
        return configuration()

    required = tls.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(configuration(), changed, required)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Whether gRPC's log says anything: that a caller left before its answer, we count."""
    return "ExecuteBatchError" not in record.getMessage()


def _options(settings: Settings, shared: bool) -> list[tuple[str, int]]:
    options = [
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", settings.max_body_bytes + _READABLE_BYTES),
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        # Of one connection no more can wait for a lane.
        ("grpc.max_concurrent_streams", settings.max_queue),
        ("grpc.max_connection_idle_ms", round(settings.idle_timeout_seconds * 1000)),
        ("grpc.keepalive_time_ms", _PING_AFTER_MS),
        ("grpc.keepalive_timeout_ms", _PONG_WITHIN_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _PINGED_MS),
        # One more is closed as it comes: gRPC has no answer for it. Releases that do not know the
        # option do without the limit.
        ("grpc.max_allowed_incoming_connections", settings.max_connections or _most_connections()),
    ]
    return [(name, min(value, _MOST)) for name, value in options]


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return open_files.grpc_connections(files)
