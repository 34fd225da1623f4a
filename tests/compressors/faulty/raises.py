"""Fails in the middle, as unforeseen networks make techniques do."""

from __future__ import annotations

from pydantic import Field

from compressors.technique import Context, Network, Settings, Technique


class _Raises(Technique):
    class Config(Settings):
        ratio: float = Field(0.5, gt=0, lt=1, description="unused")

    summary = "raises"

    def apply(self, network: Network, context: Context, config: Settings) -> Network:  # noqa: ARG002
        raise IndexError("list index out of range")


TECHNIQUE = _Raises()
