"""Requests and answers as the console is told of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.messages import InferRequest, InferResponse, Origin, Told
from router.constraints import Constraints
from router.decision import Decision

NOW_S = 1_800_000_000.0


class Tensor(np.ndarray[Any, Any]):
    """One that can be watched: plain arrays take no weak references in slots."""


def request(model: str = "echo", **demands: Any) -> InferRequest:
    inputs = {"image": np.zeros((1, 4), np.float32).view(Tensor)}
    return InferRequest(model, inputs, 1, Constraints(**demands), 0.0, Origin(tenant="gold"))


def response(variant: str = "fp32", **of_decision: Any) -> InferResponse:
    decision = Decision("echo", "accepted", "accuracy", variant, **of_decision)
    return InferResponse({}, decision, 0.25, 0.0, 1.0, 0.0, Told(False, 1.0, 7.5))
