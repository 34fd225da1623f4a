"""The state: what this process serves now, on which lanes, and what waits for them."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.console.decisions import stated
from gateway.console.history import Classes
from gateway.lifecycle.fleet import Fleet, ServedModel, VariantState
from gateway.service import Service
from gateway.wire import described
from router.card import VariantCard
from router.menu import Offer

# One real sample as a request, which `gearshift compress` writes beside the variants.
SAMPLE_FILE = "sample.json"
_MOST_SAMPLE_BYTES = 1 << 20


def share(
    service: Service,
    lately: Mapping[str, Mapping[str, Classes]],
) -> dict[str, Any]:
    """What this process has to say, as `gateway.console.everybody` joins it: plain JSON values.

    Args:
        lately: latencies of the last minute, by model and variant.
    """
    report = service.lanes_report()
    breakers = report.get("breakers", {})
    assert isinstance(breakers, dict)
    models = sorted(service.fleet.everything().values(), key=lambda model: model.name)
    return {
        "ready": service.ready,
        "stopping": service.stopping,
        "lanes": _lanes(service),
        "queue": _queue(service),
        "left_out": list(service.fleet.problems),
        "models": [_model(each, service, breakers, lately.get(each.name, {})) for each in models],
    }


class Kept:
    """What is the same each time, as JSON that is made once: cards, and a sample of each model.

    Written anew each time, they would hold up the event loop for milliseconds.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._cards: dict[str, orjson.Fragment] = {}
        self._samples: dict[str, tuple[int, orjson.Fragment | None]] = {}

    def add(self, models: list[dict[str, Any]], fleet: Fleet) -> None:
        """Add them to the models of a state."""
        everything, used = fleet.everything(), {}
        for told in models:
            model = everything.get(told["name"])
            told["sample"] = self.sample(told["name"])
            for variant in told["variants"]:
                build = None if model is None else model.builds.get(variant["name"])
                variant["card"] = None
                if build is not None:
                    entry = build.entry
                    card = self._cards.get(entry.digest)
                    if card is None:
                        card = orjson.Fragment(entry.card.model_dump_json())
                    variant["card"] = used[entry.digest] = card
        self._cards = used

    def sample(self, model: str) -> orjson.Fragment | None:
        """A body to call `model` with; None where there is none that can be read.

        A link could lead out of the store: it is not followed.
        """
        path = self._store / model / SAMPLE_FILE
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_SAMPLE_BYTES:
                return None
            known = self._samples.get(model)
            if known is None or known[0] != found.st_mtime_ns:
                body = orjson.loads(path.read_bytes())
                sample = orjson.Fragment(orjson.dumps(body)) if _is_request(body) else None
                known = found.st_mtime_ns, sample
                self._samples[model] = known
        except (OSError, ValueError):
            return None
        return known[1]


def _is_request(body: Any) -> bool:
    """Whether it has the form of a request in JSON: inputs, each with its values in a list."""
    inputs = body.get("inputs") if isinstance(body, dict) else None
    return (
        isinstance(inputs, list)
        and len(inputs) > 0
        and all(
            isinstance(one, dict)
            and isinstance(one.get("name"), str)
            and isinstance(one.get("data"), list)
            for one in inputs
        )
    )


def _lanes(service: Service) -> list[dict[str, Any]]:
    told = []
    for lane in service.lanes:
        running = lane.running
        assignment = None if running is None else running.assignment
        told.append(
            {
                "lane": lane.number,
                "busy": running is not None,
                "lost": lane.lost_s > 0,
                "model": None if assignment is None else assignment.model,
                "variant": None if assignment is None else assignment.variant,
                "rows": None if assignment is None else sum(one.rows for one in assignment.members),
            }
        )
    return told


def _queue(service: Service) -> dict[str, Any]:
    by_model = service.queued_by_model()
    oldest_s = max(service.queue_ages_s().values(), default=0.0)
    return {
        "requests": by_model.total(),
        "oldest_ms": round(oldest_s * 1000, 1),
        "by_model": dict(by_model),
    }


def _model(
    model: ServedModel,
    service: Service,
    breakers: Mapping[str, str],
    lately: Mapping[str, Classes],
) -> dict[str, Any]:
    states, builds = model.states, model.builds
    # The most accurate first; those that have no card last.
    accuracy = {name: build.offer.accuracy for name, build in builds.items()}
    ordered = sorted(states, key=lambda name: (-accuracy.get(name, -1.0), name))
    card = next((build.entry.card for build in builds.values()), None)
    told = described.model(model)
    rollout = model.rollout
    return {
        "name": model.name,
        "served": model.served,
        "metric": None if card is None else card.task.metric,
        "reference": model.reference,
        "samples": None if card is None else card.task.samples,
        "inputs": told["inputs"],
        "outputs": told["outputs"],
        "labels": None if model.labels is None else list(model.labels),
        "processor": None
        if card is None or card.processor is None
        else card.processor.model_dump(mode="json"),
        "pinned": rollout.pinned,
        "aliases": dict(rollout.aliases),
        "default_constraints": stated(service.settings.default_constraints),
        "variants": [
            _variant(model, states[name], breakers, lately.get(name, {})) for name in ordered
        ],
    }


def _variant(
    model: ServedModel, state: VariantState, breakers: Mapping[str, str], classes: Classes
) -> dict[str, Any]:
    name = state.variant
    build = model.builds.get(name)
    return {
        "name": name,
        "state": state.state,
        "why": state.why,
        "replacing": name in model.incoming,
        "breaker": breakers.get(f"{model.name}/{name}", "closed"),
        "canary_weight": model.rollout.canaries.get(name),
        "shadow_share": model.rollout.shadows.get(name),
        "live": classes,
        **(_NOT_MEASURED if build is None else _measured(build.entry.card, build.offer)),
    }


_NOT_MEASURED = dict.fromkeys(
    (
        "description",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "p50_ms",
        "p99_ms",
        "cost_usd_per_million",
    )
)


def _measured(card: VariantCard, offer: Offer) -> dict[str, Any]:
    alone = card.latency[0]
    return {
        "description": card.description,
        "accuracy": offer.accuracy,
        "accuracy_low": offer.accuracy_low,
        "accuracy_high": offer.accuracy_high,
        "p50_ms": alone.p50_ms,
        "p99_ms": alone.p99_ms,
        "cost_usd_per_million": offer.cost_usd_per_million(1),
    }
