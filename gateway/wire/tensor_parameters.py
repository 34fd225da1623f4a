"""What may not stand in the `parameters` of a tensor, an input's or an output's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.constraints import KEYS, SPELLING, TIMEOUT_PARAMETER
from router.errors import InvalidRequest

_CONSTRAINTS = frozenset((*KEYS, TIMEOUT_PARAMETER))
# The protocol's, with every request.
_OWN = frozenset(("binary_data_size", "binary_data", "classification"))


def check(field: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what would be ignored there, though it was meant to hold.

    Args:
        field: what the request calls the tensor.

    Raises:
        InvalidRequest: there is some.
    """
    if parameters.keys() <= _OWN:
        return
    for key in parameters:
        if key in _CONSTRAINTS:
            expected = "none; constraints belong to the parameters of the whole request"
        elif key.startswith("shared_memory"):
            expected = "none; the shared memory extensions are not offered"
        else:
            continue
        raise InvalidRequest(f"{field}.parameters.{key}", parameters[key], expected)
    SPELLING.check(
        f"{field}.parameters", {key: parameters[key] for key in parameters.keys() - _OWN}
    )
