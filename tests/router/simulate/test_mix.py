"""Mixes: what a file may say, every refusal, and who sends which request."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.card import NAME_PATTERN
from router.constraints import NONE, Constraints, Floor
from router.errors import GearshiftError
from router.simulate.mix import TENANTS, TENANTS_TOML, BadMix, Mix, Tenant, assign, parse, single

TWO = """
[[tenant]]
name = "interactive"
share = 3
max_latency_ms = 20
min_accuracy = "97%"
priority = "high"

[[tenant]]
name = "batch"
share = 1.0
model = "digits"
rows = 16
optimize = "cost"
max_cost_usd_per_million = 0.5
relax = "latency, cost"
variant = "int8"
"""


def test_a_mix_as_written() -> None:
    assert parse(TWO, "two.toml") == Mix(
        (
            Tenant("interactive", 0.75, Constraints(20.0, Floor(0.97, True), priority="high")),
            Tenant(
                "batch",
                0.25,
                Constraints(
                    max_cost_usd_per_million=0.5,
                    optimize="cost",
                    variant="int8",
                    relax=("latency", "cost"),
                ),
                "digits",
                16,
            ),
        )
    )


def tenant(**said: str) -> str:
    table = {"name": '"a"', "share": "1"} | said
    return "[[tenant]]\n" + "".join(f"{key} = {value}\n" for key, value in table.items() if value)


KEYS = (
    "one of name, share, model, rows, max_latency_ms, min_accuracy, max_cost_usd_per_million, "
    "optimize, variant, relax, priority"
)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "tenant: expected at least one [[tenant]] table, got 'none'"),
        ("tenant = []", "tenant: expected at least one [[tenant]] table, got 'none'"),
        ("[tenant]\nshare = 1", "tenant: expected [[tenant]] tables, got \"{'share': 1}\""),
        ("tenant = [1]", "tenant: expected [[tenant]] tables, got '[1]'"),
        ("seed = 1\n" + tenant(), "seed: expected only [[tenant]] tables, got 1"),
        (tenant(name=""), f"tenant 1: name: expected a name matching {NAME_PATTERN}, got "
         "'nothing'"),
        (tenant() + tenant(name='"A b"'), f"tenant 2: name: expected a name matching "
         f"{NAME_PATTERN}, got 'A b'"),
        (tenant(name="1"), f"tenant 1: name: expected a name matching {NAME_PATTERN}, got 1"),
        (tenant() + tenant(), "tenant 2: name: expected a name that no other tenant has, got 'a'"),
        (tenant(share=""), "tenant 'a': share: expected a positive number, got 'nothing'"),
        (tenant(share="0"), "tenant 'a': share: expected a positive number, got 0"),
        (tenant(share="-1.5"), "tenant 'a': share: expected a positive number, got -1.5"),
        (tenant(share="nan"), "tenant 'a': share: expected a positive number, got nan"),
        (tenant(share="inf"), "tenant 'a': share: expected a positive number, got inf"),
        (tenant(share="9" * 400), "tenant 'a': share: expected a positive number, got "
         + "9" * 400),
        (tenant(share="true"), "tenant 'a': share: expected a positive number, got True"),
        (tenant(share='"1"'), "tenant 'a': share: expected a positive number, got '1'"),
        (tenant(rows="0"), "tenant 'a': rows: expected a whole number, 1 or more, got 0"),
        (tenant(rows="1.5"), "tenant 'a': rows: expected a whole number, 1 or more, got 1.5"),
        (tenant(rows="true"), "tenant 'a': rows: expected a whole number, 1 or more, got True"),
        (tenant(model="1"), f"tenant 'a': model: expected a model's name, matching {NAME_PATTERN}, "
         "got 1"),
        (tenant(model='"../x"'), f"tenant 'a': model: expected a model's name, matching "
         f"{NAME_PATTERN}, got '../x'"),
        (tenant(max_latency="5"), f"tenant 'a': max_latency: expected {KEYS}, got 5"),
        (tenant(timeout="5"), f"tenant 'a': timeout: expected {KEYS}, got 5"),
        (tenant(max_latency_ms="0"), "tenant 'a': max_latency_ms: expected a positive number of "
         "milliseconds, got 0"),
        (tenant(min_accuracy='"101%"'), "tenant 'a': min_accuracy: expected a number from 0 to 1, "
         "or a percentage from 0% to 100% of the reference variant, got '101%'"),
        (tenant(priority='"urgent"'), "tenant 'a': priority: expected one of high, normal, low, "
         "got 'urgent'"),
        (tenant(relax='["cost"]'), "tenant 'a': relax: expected a comma-separated list of "
         "latency, cost, accuracy, got \"['cost']\""),
    ],
)  # fmt: skip
def test_a_refusal_names_tenant_and_field(text: str, detail: str) -> None:
    with pytest.raises(BadMix) as caught:
        parse(text, "mix.toml")
    assert caught.value.detail == f"mix.toml: {detail}"


def test_what_is_not_toml() -> None:
    with pytest.raises(BadMix, match=r"^mix.toml: expected TOML: .*line 1"):
        parse("[[tenant]", "mix.toml")
    for text in ("a = " + "9" * 5000, "a = " + "[" * 10_000):
        with pytest.raises(BadMix, match=r"^mix.toml: expected TOML: "):
            parse(text, "mix.toml")


def test_an_error_is_one_of_the_tree_with_its_parts() -> None:
    with pytest.raises(GearshiftError) as caught:
        parse(tenant(rows="0"), "mix.toml")
    assert caught.value.code == "bad-mix"
    assert caught.value.members == {
        "mix": "mix.toml",
        "tenant": "a",
        "field": "rows",
        "received": "0",
        "expected": "a whole number, 1 or more",
    }


@given(st.lists(st.floats(0, exclude_min=True, allow_infinity=False), min_size=1, max_size=9))
def test_shares_come_to_one(shares: list[float]) -> None:
    text = "".join(tenant(name=f'"t{n}"', share=repr(share)) for n, share in enumerate(shares))
    found = [each.share for each in parse(text, "x").tenants]
    assert sum(found) == pytest.approx(1.0)
    assert found == pytest.approx([each / max(shares) * max(found) for each in shares])


@given(st.integers(0, 300), st.integers())
def test_every_request_has_a_tenant_and_the_same_again(count: int, seed: int) -> None:
    found = assign(TENANTS, count, random.Random(seed))
    assert found == assign(TENANTS, count, random.Random(seed))
    assert len(found) == count
    assert set(found) <= set(range(len(TENANTS.tenants)))


def test_requests_are_assigned_by_share() -> None:
    found = assign(TENANTS, 100_000, random.Random(1))
    for index, each in enumerate(TENANTS.tenants):
        assert found.count(index) / len(found) == pytest.approx(each.share, rel=0.05)


def test_a_mix_of_one() -> None:
    demanded = Constraints(max_latency_ms=5.0)
    assert single(demanded).tenants == (Tenant("all", 1.0, demanded, "", 1),)
    assert single(NONE, "digits").tenants[0].model == "digits"
    assert assign(single(NONE), 3, random.Random(0)) == [0, 0, 0]


def test_the_bundled_mix_is_what_its_text_says() -> None:
    assert parse(TENANTS_TOML, "tenants") == TENANTS
    by_name = {each.name: each.constraints for each in TENANTS.tenants}
    assert list(by_name) == ["interactive", "standard", "tight", "careful", "batch", "capped"]
    assert by_name["interactive"] == Constraints(20.0, Floor(0.97, True), priority="high")
    assert by_name["batch"].optimize == "cost"
    assert by_name["capped"].max_cost_usd_per_million == 0.015
