"""What is told of variants at each scrape: their cards, whether they serve, which build it is.

Read when it is scraped and not kept, so that a variant that has left the store has no series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gateway.metrics.families import Families, Row
from router.breaker import STATES, State
from router.card import VariantCard
from router.constraints import Constraints
from router.menu import Offer

_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Shown:
    """One variant, now.

    Attributes:
        build: its card, what it offers and the digest of its manifest; None where what lies in the
            store cannot be served.
        healthy: whether it is loaded and warm, and requests are not kept from it.
        breaker: the state of its breaker.
    """

    model: str
    variant: str
    build: tuple[VariantCard, Offer, str] | None
    healthy: bool
    breaker: State


def watch(
    families: Families,
    variants: Callable[[], Iterable[Shown]],
    default: Callable[[], Constraints],
) -> None:
    """Show what `variants` gives at each scrape.

    Args:
        default: what holds for a request that demands nothing.
    """

    def whole() -> Iterator[tuple[str, str, VariantCard, Offer, str]]:
        for each in variants():
            if each.build is not None:
                yield (each.model, each.variant, *each.build)

    def ready() -> Iterator[Row]:
        return (((v.model, v.variant), float(v.healthy)) for v in variants())

    def breakers() -> Iterator[Row]:
        return (((v.model, v.variant), float(STATES.index(v.breaker))) for v in variants())

    def info() -> Iterator[Row]:
        for model, variant, card, _, digest in whole():
            recipe = "+".join(step.technique for step in card.recipe) or "none"
            yield (model, variant, digest[:_DIGITS], card.engine.name, recipe), 1.0

    def accuracies() -> Iterator[Row]:
        for model, variant, card, _, _ in whole():
            own = card.accuracy
            for bound, value in (("low", own.low), ("point", own.value), ("high", own.high)):
                yield (model, variant, bound), value

    def latencies() -> Iterator[Row]:
        for model, variant, card, _, _ in whole():
            one = card.latency[0]  # of a batch of one row: cards list it first
            for share, ms in (("0.5", one.p50_ms), ("0.95", one.p95_ms), ("0.99", one.p99_ms)):
                yield (model, variant, share), ms / 1000

    def costs() -> Iterator[Row]:
        return (
            ((model, name), offer.cost_usd_per_million(1)) for model, name, _, offer, _ in whole()
        )

    def references() -> Iterator[Row]:
        for model, variant, card, _, _ in whole():
            if variant == card.reference:
                yield (model,), card.accuracy.value

    def floors() -> Iterator[Row]:
        floor = default().min_accuracy
        if floor is not None:
            for labels, accuracy in references():
                yield labels, floor.value * (accuracy if floor.relative else 1.0)

    for name, probe in (
        ("variant_ready", ready),
        ("breaker", breakers),
        ("variant_info", info),
        ("card_accuracy", accuracies),
        ("card_latency_seconds", latencies),
        ("card_cost_usd_per_million", costs),
        ("reference_accuracy", references),
        ("accuracy_floor", floors),
    ):
        families[name].probe = probe
