"""What one infer request demands, wherever its protocol lets it say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.lifecycle.fleet import ServedModel
from router import constraints
from router.constraints import Constraints

Headers = tuple[tuple[str, str], ...]


def of(
    served: ServedModel, headers: Headers, parameters: Mapping[str, object], version: str | None
) -> Constraints:
    """The constraints that headers and parameters state, pinned to the version that is named.

    Args:
        headers: as `router.constraints.parse`.
        version: a variant or an alias, as a path or a message names it.

    Raises:
        InvalidRequest: a value that makes no sense, or two that disagree.
        UnknownVariant: the version is none.
    """
    stated = constraints.parse(headers, parameters)
    if version is None:
        return stated
    variant = served.resolve(version).variant
    if stated.variant is not None:
        stated = replace(stated, variant=served.resolve(stated.variant).variant)
    return constraints.pin(stated, variant, "versions/" + variant)


def explained(headers: Headers) -> bool:
    """Whether the answer should hold the whole decision."""
    return any(
        name == constraints.EXPLAIN_HEADER and constraints.explain(value) for name, value in headers
    )
