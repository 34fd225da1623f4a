"""What the operator names: variants of a model, by name or alias, in the store or in a rollout.

A variant's name is what its folder is called. An alias comes before a variant of the same name that
came later, as it does for requests.
"""

from __future__ import annotations

import logging

from gateway.lifecycle.fleet import Fleet
from router.errors import InvalidRequest, UnknownVariant
from router.menu import REFERENCE_ALIAS
from router.rollout import Rollout

_LOG = logging.getLogger(__name__)


def resolved(fleet: Fleet, model: str, variant: str, rollout: Rollout) -> str:
    """The variant that `variant`, which may be an alias, names."""
    if variant == REFERENCE_ALIAS and (served := fleet.everything().get(model)) is not None:
        return served.reference
    return rollout.aliases.get(variant, variant)


def warn_of_alias(model: str, variant: str, rollout: Rollout) -> None:
    """Say so where `variant`, which was found in the store, is called what an alias is."""
    named = rollout.aliases.get(variant)
    if named is not None:
        _LOG.warning("%s/%s cannot be named: the alias %s is %s", model, variant, variant, named)


def check_known(fleet: Fleet, model: str, variant: str) -> None:
    """Make sure that the store holds `variant`.

    Raises:
        UnknownModel, UnknownVariant: it does not.
    """
    served = fleet.everything().get(model)
    if served is None:
        known = fleet.broken.get(model) or fleet.model(model).states
    else:
        known = served.states
    if variant not in known:
        names = ", ".join(sorted(known))
        raise UnknownVariant(f"{model} has no variant {variant!r}; there are {names}")


def check_some_left(fleet: Fleet, model: str, rollout: Rollout) -> None:
    """Make sure that `rollout` leaves a variant for requests that name none.

    Raises:
        InvalidRequest: it leaves none, and the model is not unloaded either.
    """
    served = fleet.everything().get(model)
    left = set(served.builds if served is not None else ()) - rollout.apart()
    if served is not None and served.builds and rollout.serves and not left:
        expected = f"one that leaves a variant of {model} to answer; or unload the model"
        raise InvalidRequest("rollout", "none", expected)
