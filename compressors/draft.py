"""A draft of a card: what an engine needs to load a variant, before anything is measured."""

from __future__ import annotations

from router.card import EngineRecord, Precision, TensorSpec, VariantCard


def draft_card(
    engine: str,
    format_: str,
    precision: Precision,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    constructor: str | None = None,
    constructor_digest: str | None = None,
) -> VariantCard:
    """A card with engine, precision, inputs and outputs, and nothing else. `constructor` and
    its digest are the interface's, for an engine that needs the task's own code to load the
    variant; the digest of another format is left out.

    It is not validated and the fields that are measured later are absent, not made up: reading
    one of them raises AttributeError.
    """
    return VariantCard.model_construct(
        precision=precision,
        engine=EngineRecord.model_construct(
            name=engine,
            format=format_,
            constructor=constructor,
            constructor_digest=constructor_digest if constructor else None,
        ),
        inputs=inputs,
        outputs=outputs,
    )
