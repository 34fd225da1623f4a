"""How many examples the laws are held to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import laws


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Other tests keep the profile that they run under."""
    before = settings.get_current_profile_name()
    yield
    settings.load_profile(before)


@pytest.mark.parametrize(
    ("profile", "asked", "held"),
    [
        (laws.WHOLE, 300, 300),
        (laws.WHOLE, 5, 5),
        (laws.EVERY_RUN, 300, 75),
        (laws.EVERY_RUN, 41, 10),
        (laws.EVERY_RUN, 8, 10),
    ],
)
def test_a_law_is_held_to_a_quarter_or_to_all_of_its_examples(
    profile: str, asked: int, held: int
) -> None:
    settings.load_profile(profile)
    assert laws.examples(asked).max_examples == held
