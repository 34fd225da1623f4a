"""A draft: the part of a card that an engine needs to load a variant, before it is measured."""

from __future__ import annotations

from compressors.interface import Interface
from router.card import EngineRecord, Precision, VariantCard


def draft_card(engine: str, format_: str, precision: Precision, interface: Interface) -> VariantCard:
    """A card with engine, precision, inputs and outputs and nothing else.

    It is not validated and the fields that are measured later are absent, not made up: reading
    one of them raises AttributeError.
    """
    return VariantCard.model_construct(
        precision=precision,
        engine=EngineRecord.model_construct(name=engine, format=format_),
        inputs=interface.inputs,
        outputs=interface.outputs,
    )
