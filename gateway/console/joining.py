"""What several workers said, as one: pure functions of their shares.

A page that asks again may reach another worker. It sees the same all the same: of a variant that is
not everywhere in the same state, the least ready one is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.console.history import Classes, merge, percentile_ms

_LEAST_READY = ("failed", "loading", "evicted", "disabled", "shadow", "ready")
_BREAKERS = ("closed", "half-open", "open")


def state(own: int, shares: Mapping[int, Mapping[str, Any]], workers: int) -> dict[str, Any]:
    """The state of all, as the console's API has it.

    Args:
        own: the number of the worker that was asked, whose models are told.
        shares: by worker, what each that answered said; see `gateway.console.state.share`.
    """
    told = [shares[number] for number in sorted(shares)]
    models = [_model(model, told) for model in shares[own]["models"]]
    silent = [number for number in range(workers) if number not in shares]
    stopping = any(share["stopping"] for share in told)
    ready = all(share["ready"] for share in told)
    tone, text = status(models, ready=ready, stopping=stopping, silent=silent)
    queues = [share["queue"] for share in told]
    return {
        "worker": own,
        "workers": workers,
        "silent": silent,
        "status": {"tone": tone, "text": text},
        "lanes": [
            {"worker": number, **lane}
            for number in sorted(shares)
            for lane in shares[number]["lanes"]
        ],
        "queue": {
            "requests": sum(queue["requests"] for queue in queues),
            "oldest_ms": max(queue["oldest_ms"] for queue in queues),
            "by_model": _summed([queue["by_model"] for queue in queues]),
        },
        "left_out": shares[own]["left_out"],
        "models": models,
    }


def status(
    models: list[dict[str, Any]], *, ready: bool, stopping: bool, silent: list[int]
) -> tuple[str, str]:
    """How it is, as good, wait or bad; and in words."""
    states = [variant["state"] for model in models for variant in model["variants"]]
    served = [model for model in models if model["served"]]
    idle = [m["name"] for m in served if not any(v["state"] == "ready" for v in m["variants"])]
    loading = states.count("loading")
    if stopping:
        return "wait", "Stopping: running requests finish, new ones are refused"
    if silent:
        away = ", ".join(str(number) for number in silent)
        return "wait", f"Worker {away} does not answer: what it does is not shown"
    if loading and not ready:
        settled = len(states) - loading
        return "wait", f"Loading: {settled} of {len(states)} variants are settled"
    if idle:
        return "bad", f"Not ready: nothing of {', '.join(idle)} serves"
    if not ready:
        return "wait", "Not ready yet"
    return "good", f"Ready: {states.count('ready')} of {len(states)} variants serve"


def decisions(shares: Mapping[int, Mapping[str, Any]], limit: int) -> dict[str, Any]:
    """The latest decisions of all, the newest first.

    `last` is what to ask from the next time. What one worker decided after another had answered
    comes then.
    """
    last = min(share["last"] for share in shares.values())
    found = [each for share in shares.values() for each in share["decisions"] if each["id"] <= last]
    found.sort(key=lambda each: -int(each["id"]))
    outcomes = sorted({each for share in shares.values() for each in share["outcomes"]})
    return {"last": last, "outcomes": outcomes, "decisions": found[:limit]}


def _model(own: Mapping[str, Any], shares: list[Mapping[str, Any]]) -> dict[str, Any]:
    same = [
        each for share in shares for each in share["models"] if each["name"] == own["name"]
    ]  # a worker that does not have the model yet says nothing of it
    variants = []
    for variant in own["variants"]:
        others = [v for model in same for v in model["variants"] if v["name"] == variant["name"]]
        least = min(others, key=lambda one: _LEAST_READY.index(one["state"]))
        classes: Classes = {}
        for one in others:
            merge(classes, one["live"])
        live = {
            "answers": sum(classes.values()),
            "p50_ms": percentile_ms(classes, 50),
            "p99_ms": percentile_ms(classes, 99),
        }
        variants.append(
            {
                **variant,
                "state": least["state"],
                "why": least["why"],
                "breaker": max((one["breaker"] for one in others), key=_BREAKERS.index),
                "live": live if classes else None,
            }
        )
    return {**own, "variants": variants}


def _summed(each: list[Mapping[str, int]]) -> dict[str, int]:
    names = sorted({name for one in each for name in one})
    return {name: sum(one.get(name, 0) for one in each) for name in names}
