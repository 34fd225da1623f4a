"""The settings of decisions, and what holds for requests that state no constraint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode

from gateway.settings.types import FloorText, Number, PolicyName, Table
from router.constraints import NONE, Constraints, Objective, floor
from router.menu import Percentile


class DecisionSettings(BaseSettings):
    """By what a variant is chosen."""

    latency_percentile: Annotated[Percentile, Number] = Field(
        99, description="The percentile of a variant's batch time that a promise counts on."
    )
    accuracy_margin: float = Field(
        0.005,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="A variant shown not to be worse than the best by more than this counts as "
        "its equal; 0.005 is half a point.",
    )
    policy: PolicyName = Field("gearshift", description="What a free lane runs, by name.")
    model_weights: Annotated[
        Mapping[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]],
        NoDecode,
        Table,
    ] = Field(
        {},
        description="How much lane time each model gets, beside the others, when there is not "
        "enough for all; 1 for those that are not named.",
    )
    usd_per_lane_hour: float = Field(
        0.05, ge=0, allow_inf_nan=False, description="The price of one lane for one hour, in USD."
    )
    default_max_latency_ms: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Deadline of a request that states no constraint, in ms.",
    )
    default_min_accuracy: FloorText | None = Field(
        None,
        description="Floor of a request that states no constraint: 0.97, or 99% of the reference.",
    )
    default_max_cost_usd_per_million: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Cost cap of a request that states no constraint, in USD per million.",
    )
    default_optimize: Objective = Field(
        "accuracy", description="What to make best where a request does not say."
    )

    @property
    def default_constraints(self) -> Constraints:
        """The operator's default policy; demands nothing unless one of the defaults is set."""
        least = self.default_min_accuracy
        own = Constraints(
            max_latency_ms=self.default_max_latency_ms,
            min_accuracy=None if least is None else floor("default_min_accuracy", least),
            max_cost_usd_per_million=self.default_max_cost_usd_per_million,
            optimize=self.default_optimize,
        )
        return NONE if own == Constraints(optimize="accuracy") else own
