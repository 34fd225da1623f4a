"""The rollout: what the operator wants of one model's variants, beyond what lies in the store.

Each variant has one part in it: it serves as the others do, it is disabled, it is a canary, or it
is a shadow. Beside that one variant can be pinned, and aliases can be given.

- A *pinned* variant answers every request that names none. It comes before any canary, so that a
  pin is a brake: what was set before holds again once it is let go.
- A *canary* gets its share of the requests whose constraints it meets, and answers no other
  unless it is named.
- A *shadow* answers nobody. A share of the requests is run on it again, for comparison.
- A *disabled* variant is kept in the store alone.

A value here is changed by making another; nothing holds a clock or chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.card import Name
from router.menu import REFERENCE_ALIAS

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

# Shares as people write them add up to 1 within this.
_ROUNDING = 1e-9


class Rollout(BaseModel):
    """What is wanted of one model.

    Attributes:
        serves: whether the model is served at all.
        disabled: variants that are not.
        pinned: the variant that answers every request that names none.
        canaries: variants on trial, each with the share of requests that it gets.
        shadows: variants that are only compared, each with the share of requests.
        aliases: further names of variants.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    serves: bool = True
    disabled: tuple[Name, ...] = ()
    pinned: Name | None = None
    canaries: Mapping[Name, Share] = {}
    shadows: Mapping[Name, Share] = {}
    aliases: Mapping[Name, Name] = {}

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        parts = [*self.disabled, *self.canaries, *self.shadows]
        for variant in parts:
            if parts.count(variant) > 1:
                raise ValueError(f"{variant} has two parts; expected one for each variant")
        if self.pinned in (*self.disabled, *self.shadows):
            raise ValueError(f"{self.pinned} is pinned, so it can neither be disabled nor a shadow")
        if sum(self.canaries.values()) > 1 + _ROUNDING:
            raise ValueError("the canaries' shares add up to more than 1")
        if REFERENCE_ALIAS in self.aliases:
            raise ValueError(f"the alias {REFERENCE_ALIAS} is fixed")
        return self

    def enable(self, variant: str) -> Rollout:
        """`variant` serves as the others do."""
        return self._changed(
            disabled=tuple([name for name in self.disabled if name != variant]),
            canaries=_without(self.canaries, variant),
            shadows=_without(self.shadows, variant),
        )

    def disable(self, variant: str) -> Rollout:
        """`variant` is not served.

        Raises:
            ValueError: it is pinned.
        """
        others = self.enable(variant)
        return others._changed(disabled=(*others.disabled, variant))

    def canary(self, variant: str, share: float) -> Rollout:
        """`variant` gets `share` of the requests whose constraints it meets, and no others.

        Raises:
            ValueError: the share is not above 0 and up to 1, or too much with the others'.
        """
        others = self.enable(variant)
        return others._changed(canaries={**others.canaries, variant: share})

    def shadow(self, variant: str, share: float) -> Rollout:
        """`share` of the requests is run on `variant` again.

        Raises:
            ValueError: the share is not above 0 and up to 1, or the variant is pinned.
        """
        others = self.enable(variant)
        return others._changed(shadows={**others.shadows, variant: share})

    def pin(self, variant: str | None) -> Rollout:
        """`variant` answers whoever names none; None lets go.

        Raises:
            ValueError: it is disabled, or a shadow.
        """
        return self._changed(pinned=variant)

    def alias(self, alias: str, variant: str | None) -> Rollout:
        """`alias` names `variant`; None takes the alias away.

        Raises:
            ValueError: no name, or the one that is fixed.
        """
        others = _without(self.aliases, alias)
        return self._changed(aliases=others if variant is None else {**others, alias: variant})

    def serve(self, serves: bool) -> Rollout:
        """Whether the model is served at all."""
        return self._changed(serves=serves)

    def forget(self, variant: str) -> Rollout:
        """Nothing is said of `variant` any more: it has no part, no pin and no alias."""
        others = self.enable(variant)
        return others._changed(
            pinned=None if self.pinned == variant else self.pinned,
            aliases={alias: name for alias, name in self.aliases.items() if name != variant},
        )

    def mentions(self, variant: str) -> bool:
        """Whether anything is said of `variant`."""
        return self.forget(variant) != self

    def absent(self) -> dict[str, str]:
        """Why each variant that is off the menu is."""
        return {
            **dict.fromkeys(self.disabled, "disabled by the operator"),
            **dict.fromkeys(self.shadows, "a shadow, which answers nobody"),
        }

    def apart(self) -> set[str]:
        """The variants that do not answer whoever names none."""
        return {*self.disabled, *self.shadows, *self.canaries}

    def _changed(self, **members: object) -> Rollout:
        return Rollout.model_validate({**dict(self), **members})


AS_IT_LIES = Rollout()
"""What holds while the operator has said nothing: everything in the store serves."""


def pick(shares: Mapping[str, float], number: float) -> str | None:
    """The canary that a request falls to; None for none.

    Args:
        number: the request's own, even from 0 up to 1, without 1.
    """
    end = 0.0
    for variant, share in shares.items():
        end += share
        if number < end:
            return variant
    return None


def _without(shares: Mapping[str, object], variant: str) -> dict[str, object]:
    return {name: value for name, value in shares.items() if name != variant}
