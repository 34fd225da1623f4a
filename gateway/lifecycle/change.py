"""Change: what the store and the operator bring to a model that is served.

Each function is one thing that may happen to a model, and leaves it whole. All of them run on the
event loop's thread while no lane looks, but for the two that only work something out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from gateway.execution.lease import Loaded
from gateway.lifecycle import catalog
from gateway.lifecycle.builds import Build, Terms
from gateway.lifecycle.catalog import Entry
from gateway.lifecycle.served import ServedModel
from router.rollout import Rollout

_LOG = logging.getLogger(__name__)


def evidence_with(model: ServedModel, variant: str) -> dict[str, dict[str, float]]:
    """What the menu's scores will prove once the incoming build of `variant` is on it."""
    entries = {name: build.entry for name, build in model.builds.items()}
    return catalog.evidence({**entries, variant: model.incoming[variant].entry})


def evidence_after(
    model: ServedModel, found: Mapping[str, Entry], gone: Collection[str]
) -> dict[str, dict[str, float]]:
    """What they will prove once these were found and those are gone; slow where any are."""
    if not (found or gone):
        return model.not_worse
    entries = {name: build.entry for name, build in model.builds.items() if name not in gone}
    fresh = {name: entry for name, entry in found.items() if not _is_held(model, name)}
    return catalog.evidence({**entries, **fresh})


def _is_held(model: ServedModel, variant: str) -> bool:
    build = model.builds.get(variant)
    return build is not None and build.stage not in ("waiting", "failed")


def found(model: ServedModel, variant: str, entry: Entry) -> None:
    """A build of `variant` lies in the store that was not there before."""
    model.broken.pop(variant, None)
    model.incoming.pop(variant, None)
    current = model.builds.get(variant)
    if current is not None and current.entry.digest == entry.digest:
        if current.stage == "failed":
            current.move("retry")
        current.why = ""
        return
    if catalog.kind(entry) != model.kind:
        spoilt(model, variant, catalog.DISAGREES)
        return
    build = Build(entry, model.terms.offer(entry), late=True)
    if current is None or current.stage in ("waiting", "failed"):
        build.resting = current is not None and current.resting
        model.builds[variant] = build
    else:
        model.incoming[variant] = build


def spoilt(model: ServedModel, variant: str, why: str) -> None:
    """What lies in the store of `variant` cannot be served; what is in memory can."""
    model.incoming.pop(variant, None)
    current = model.builds.get(variant)
    if current is not None and current.stage not in ("waiting", "failed"):
        keep(model, variant, why)
        return
    model.builds.pop(variant, None)
    model.broken[variant] = why
    _LOG.error("%s/%s will not serve: %s", model.name, variant, why)


def keep(model: ServedModel, variant: str, why: str) -> None:
    """The current build of `variant` serves on: the one that came after it cannot."""
    why = f"a newer build cannot be served, so the one before it serves: {why}"
    model.builds[variant].why = why
    _LOG.error("%s/%s: %s", model.name, variant, why)


def gone(model: ServedModel, variant: str) -> None:
    """`variant` is not in the store any more."""
    model.broken.pop(variant, None)
    model.incoming.pop(variant, None)
    build = model.builds.pop(variant, None)
    if build is not None:
        model.send_off(variant, build)


def switch(model: ServedModel, variant: str, loaded: Loaded) -> None:
    """Let the incoming build of `variant`, loaded and warm, take the current one's place."""
    build = model.incoming.pop(variant)
    before = model.builds[variant]
    model.builds[variant] = build
    model.send_off(variant, before)
    model.loaded[variant] = loaded
    build.move("warmed")
    model.remake()


def direct(model: ServedModel, rollout: Rollout, not_worse: dict[str, dict[str, float]]) -> None:
    """Let `rollout` hold, and what the scores of what there is now prove.

    What it takes off the menu leaves; what it does not is loaded when its turn comes.
    """
    model.rollout = rollout
    model.not_worse = not_worse
    absent = rollout.absent()
    for variant in list(model.builds):
        if variant in absent or not rollout.serves:
            withdraw(model, variant)
    model.remake()


def withdraw(model: ServedModel, variant: str) -> None:
    """Take `variant` out of memory, once what was promised it has run; it stays in the store.

    Where a newer build was to take its place, that one is what stays.
    """
    before = model.builds[variant]
    if before.stage in ("waiting", "failed"):
        return
    entry = (model.incoming.pop(variant, None) or before).entry
    fresh = entry is not before.entry
    model.builds[variant] = Build(
        entry, model.terms.offer(entry) if fresh else before.offer, late=True
    )
    model.send_off(variant, before)
    model.remake()


def offer_anew(model: ServedModel, terms: Terms) -> None:
    """Offer every build on other terms."""
    model.terms = terms
    for build in (*model.builds.values(), *model.incoming.values()):
        build.offer = terms.offer(build.entry)
    model.remake()


def unneeded(model: ServedModel, build: Build) -> None:
    """Let no lane start a batch of `build`, which is leaving, any more."""
    build.move("retire")
    model.publish()


def freed(model: ServedModel, build: Build) -> None:
    """`build`, which was leaving, is out of memory."""
    model.leaving.remove(build)
    model.publish()
