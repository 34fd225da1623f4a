"""What is not inference: health, metadata, configuration, statistics, the model repository."""

from __future__ import annotations

import contextlib
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import service_pb2 as pb

from gateway.rpc.calls import Call
from gateway.rpc.messages import values
from gateway.service import Service
from gateway.statistics import INFER_STATISTICS, VariantStatistics
from gateway.wire import described
from router.errors import InvalidRequest, UnknownModel, UnknownVariant


class Models:
    """The methods of that kind; each takes a message and the call, and gives the answer's message.

    Args:
        statistics: as `gateway.statistics.Statistics.of`.
    """

    def __init__(self, service: Service, statistics: Any, max_batch: int) -> None:
        self._service = service
        self._statistics = statistics
        self._max_batch = max_batch

    async def live(self, _: Any, __: Call) -> Any:
        """Whether the process lives."""
        return pb.ServerLiveResponse(live=self._service.live)

    async def ready(self, _: Any, __: Call) -> Any:
        """Whether every model can be served."""
        return pb.ServerReadyResponse(ready=self._service.ready)

    async def model_ready(self, message: Any, _: Call) -> Any:
        """Whether a variant can serve, or the one that the version names.

        What there is not is not ready, as Triton has it: its clients ask so until a model is there.
        """
        ready = False
        with contextlib.suppress(UnknownModel, UnknownVariant):
            served = self._service.fleet.model(message.name)
            if message.version:
                variant = served.resolve(message.version).variant
                ready = self._service.healthy(message.name, variant)
            else:
                ready = bool(served.ready)
        return pb.ModelReadyResponse(ready=ready and not self._service.leaving)

    async def server_metadata(self, _: Any, __: Call) -> Any:
        """What the server is and can do."""
        return pb.ServerMetadataResponse(**described.server())

    async def model_metadata(self, message: Any, _: Call) -> Any:
        """Names, shapes and datatypes; versions are variants."""
        served = self._service.fleet.model(message.name)
        told = described.model(served, message.version or None)
        tensors = {side: [_tensor(one) for one in told[side]] for side in ("inputs", "outputs")}
        return pb.ModelMetadataResponse(
            name=told["name"], versions=told["versions"], platform=told["platform"], **tensors
        )

    async def model_config(self, message: Any, _: Call) -> Any:
        """Triton's model configuration extension."""
        served = self._service.fleet.model(message.name)
        if message.version:
            served.resolve(message.version)
        config = described.config(served, self._max_batch)
        return json_format.ParseDict({"config": config}, pb.ModelConfigResponse())

    async def model_statistics(self, message: Any, _: Call) -> Any:
        """Triton's statistics extension: of every model, of one, or of one variant."""
        fleet = self._service.fleet
        told = pb.ModelStatisticsResponse()
        for served in [fleet.model(message.name)] if message.name else fleet.models():
            version = message.version
            variants = [served.resolve(version).variant] if version else sorted(served.cards)
            for one in self._statistics(served.name, variants):
                _add(told, one)
        return told

    async def repository_index(self, message: Any, _: Call) -> Any:
        """Triton's repository extension: every variant and its state."""
        _only_repository(message)
        listed = self._service.operator.index(ready_only=message.ready)
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=one.name, version=one.version, state=one.state, reason=one.reason
                )
                for one in listed
            ]
        )

    async def repository_load(self, message: Any, _: Call) -> Any:
        """Serve a model again, or what the store holds of it now."""
        _only_repository(message)
        for key, value in values(message.parameters).items():
            raise InvalidRequest(
                f"parameters.{key}", type(value).__name__, "none; models come from the store alone"
            )
        await self._service.operator.load(message.model_name)
        return pb.RepositoryModelLoadResponse()

    async def repository_unload(self, message: Any, _: Call) -> Any:
        """Take a model out of service."""
        _only_repository(message)
        # `unload_dependents` and its like: no model here depends on another.
        await self._service.operator.unload(message.model_name)
        return pb.RepositoryModelUnloadResponse()


def _tensor(told: dict[str, Any]) -> Any:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=told["name"], datatype=told["datatype"], shape=told["shape"]
    )


def _add(told: Any, one: VariantStatistics) -> None:
    added = told.model_stats.add(
        name=one.name,
        version=one.version,
        last_inference=one.last_inference,
        inference_count=one.inference_count,
        execution_count=one.execution_count,
    )
    for name in INFER_STATISTICS:
        count, ns = getattr(one, name)
        timed = getattr(added.inference_stats, name)
        timed.count, timed.ns = count, ns
    for batch in one.batches:
        size = added.batch_stats.add(batch_size=batch.batch_size)
        size.compute_infer.count, size.compute_infer.ns = batch.compute_infer
        size.compute_input.count = size.compute_output.count = batch.compute_infer.count


def _only_repository(message: Any) -> None:
    if message.repository_name:
        raise InvalidRequest(
            "repository_name", message.repository_name, "none; there is one repository"
        )
