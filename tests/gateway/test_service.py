"""What the service refuses to start with, and what it says of a variant that was not foreseen."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gateway.execution.tickets import Result
from gateway.journal import Journal
from gateway.lifecycle import catalog
from gateway.lifecycle.fleet import Fleet
from gateway.metrics import Metrics
from gateway.service import Service
from gateway.settings import Settings, SettingsError
from gateway.shifting import shifted
from router.constraints import Constraints
from router.route import Policy, route
from router.snapshot import idle
from tests.stores import write_three


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_three(tmp_path)
    return tmp_path


def test_a_weight_for_a_model_that_is_not_there(models: Path) -> None:
    with pytest.raises(SettingsError, match=r"^model_weights: expected some of echo, got 'ecko'$"):
        Service(Settings(models=models, model_weights={"ecko": 2.0}), Journal(Metrics()))
    Service(Settings(models=models, model_weights={"echo": 2.0}), Journal(Metrics()))


@pytest.mark.parametrize(
    ("ran", "left_ms", "why"),
    [
        ("small", 0.01, "less time was left than predicted"),
        ("fp32", 50.0, "more time was left than predicted"),
        ("small", 10_000.0, "lane time was scarcer than predicted"),
        ("small", math.inf, "lane time was scarcer than predicted"),
        ("fp32", math.inf, "lane time was less scarce than predicted"),
    ],
)
def test_what_ran_instead_is_explained_and_described(
    models: Path, ran: str, left_ms: float, why: str
) -> None:
    fleet = Fleet.of(catalog.usable(models), percentile=99, usd_per_lane_hour=0.05, max_batch=32)
    served = fleet.model("echo")
    offers = served.menu.by_name
    demands = Constraints(max_latency_ms=1.5)
    foreseen = route(demands, served.menu, idle(frozenset(served.cards)), Policy())
    assert (foreseen.variant, foreseen.allowed) == ("int8", ("int8", "small"))
    result = Result({"logits": np.zeros((1, 3))}, ran, 10.004, 10.006, batch_rows=32)
    kept = shifted(foreseen, offers[ran], offers[foreseen.variant], result, 1, left_ms)
    assert (kept.variant, kept.reason) == (ran, "shifted-at-dispatch")
    assert why in kept.why
    assert "int8" in kept.why
    offer = served.menu.by_name[ran]
    assert kept.predicted_latency_ms == foreseen.predicted_latency_ms
    assert kept.accuracy == offer.accuracy
    assert kept.cost_usd_per_million == offer.cost_usd_per_million(1)
    # Both lists are as true of it as before.
    assert sorted(kept.allowed) == sorted({"int8", "small", ran})
    assert kept.allowed[0] == ran
    assert ran not in {refusal.variant for refusal in kept.refused}
    assert kept.estimate_ms == foreseen.estimate_ms
