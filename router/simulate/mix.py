"""The mix: who sends the requests of a workload, and what each of them demands.

Published traces say when requests came and not what they demanded, so that part is declared: a mix
is a list of tenants, each with a share of the requests and one set of constraints, as TOML:

    [[tenant]]
    name = "interactive"
    share = 3               # of the requests, relative to the other tenants' shares
    max_latency_ms = 20     # and any other parameter of a request, as `router.constraints` reads it
    model = "digits"        # where more than one model is simulated
    rows = 4                # of each request; 1 unless said
"""

from __future__ import annotations

import math
import random
import re
import sys
import tomllib
from dataclasses import dataclass

from router import constraints
from router.card import NAME_PATTERN
from router.constraints import Constraints
from router.errors import GearshiftError, InvalidRequest

KEYS = ("name", "share", "model", "rows", *constraints.KEYS)

_NAME = re.compile(NAME_PATTERN)


class BadMix(GearshiftError):
    """A mix that cannot be used. Names the mix, the tenant and the field, and what was expected."""

    code = "bad-mix"
    title = "Invalid mix"


@dataclass(frozen=True, slots=True)
class Tenant:
    """Requests that all demand the same.

    Attributes:
        share: of all requests, from 0 to 1.
        constraints: what each of them demands.
        model: which model they are for; empty for the only one.
        rows: rows of each request.
    """

    name: str
    share: float
    constraints: Constraints
    model: str = ""
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Mix:
    """Tenants, in the order they were declared; their shares come to 1."""

    tenants: tuple[Tenant, ...]


def single(constraints: Constraints, model: str = "") -> Mix:
    """The mix of one tenant, `all`."""
    return Mix((Tenant("all", 1.0, constraints, model),))


def assign(mix: Mix, count: int, rng: random.Random) -> list[int]:
    """Whose request each of `count` is, as indices into `mix.tenants`, independent by share."""
    shares = [tenant.share for tenant in mix.tenants]
    return rng.choices(range(len(shares)), weights=shares, k=count)


def parse(text: str, name: str) -> Mix:
    """The mix that `text`, TOML as in the module's own, declares; shares are made to come to 1.

    Args:
        name: what messages call it.

    Raises:
        BadMix: not TOML, no tenant, an unknown key, a value out of its domain, or a name twice.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMix(f"{name}: expected TOML: {error}", mix=name) from error
    for key in document:
        if key != "tenant":
            raise _bad(name, None, key, document[key], "only [[tenant]] tables")
    tables = document.get("tenant", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _bad(name, None, "tenant", tables, "[[tenant]] tables")
    if not tables:
        raise _bad(name, None, "tenant", "none", "at least one [[tenant]] table")
    tenants: dict[str, Tenant] = {}
    for place, table in enumerate(tables, 1):
        tenant = _tenant(table, name, place)
        if tenant.name in tenants:
            raise _bad(name, place, "name", tenant.name, "a name that no other tenant has")
        tenants[tenant.name] = tenant
    # By the largest first: a sum of shares may be more than a float holds.
    largest = max(tenant.share for tenant in tenants.values())
    total = math.fsum(tenant.share / largest for tenant in tenants.values())
    return Mix(
        tuple(
            Tenant(each.name, each.share / largest / total, each.constraints, each.model, each.rows)
            for each in tenants.values()
        )
    )


def _tenant(table: dict[str, object], mix: str, place: int) -> Tenant:
    name = table.get("name", "nothing")
    if not isinstance(name, str) or "name" not in table or not _NAME.fullmatch(name):
        raise _bad(mix, place, "name", name, f"a name matching {NAME_PATTERN}")
    for key in table:
        if key not in KEYS:
            raise _bad(mix, name, key, table[key], "one of " + ", ".join(KEYS))
    share, model, rows = table.get("share", "nothing"), table.get("model", ""), table.get("rows", 1)
    if (
        not isinstance(share, int | float)
        or isinstance(share, bool)
        or not 0 < share <= sys.float_info.max
    ):
        raise _bad(mix, name, "share", share, "a positive number")
    if not isinstance(model, str) or not (model == "" or _NAME.fullmatch(model)):
        raise _bad(mix, name, "model", model, f"a model's name, matching {NAME_PATTERN}")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise _bad(mix, name, "rows", rows, "a whole number, 1 or more")
    demanded = {key: table[key] for key in constraints.KEYS if key in table}
    try:
        return Tenant(name, float(share), constraints.parse(parameters=demanded), model, rows)
    except InvalidRequest as error:
        field = str(error.members["field"]).removeprefix("parameters.")
        raise _bad(mix, name, field, table[field], str(error.members["expected"])) from error


def _bad(mix: str, tenant: str | int | None, field: str, received: object, expected: str) -> BadMix:
    shown = received if isinstance(received, (int, float, bool)) else str(received)[:200]
    called = "" if tenant is None else f"tenant {tenant!r}: "
    return BadMix(
        f"{mix}: {called}{field}: expected {expected}, got {shown!r}",
        mix=mix,
        tenant=tenant,
        field=field,
        received=str(shown),
        expected=expected,
    )


# Written for models whose fastest variant takes well under 1 ms a row and whose reference takes
# about 2 ms, so that in turn speed, accuracy and price decide. A lane for USD 0.05 an hour makes a
# million requests of 1 ms each cost USD 0.014.
TENANTS_TOML = """\
[[tenant]]
name = "interactive"
share = 40
max_latency_ms = 20
min_accuracy = "97%"
priority = "high"

[[tenant]]
name = "standard"
share = 25
max_latency_ms = 30

[[tenant]]
name = "tight"
share = 10
max_latency_ms = 10
min_accuracy = "95%"
relax = "accuracy"

[[tenant]]
name = "careful"
share = 10
max_latency_ms = 100
min_accuracy = "99%"

[[tenant]]
name = "batch"
share = 10
max_latency_ms = 500
min_accuracy = "95%"
optimize = "cost"
priority = "low"

[[tenant]]
name = "capped"
share = 5
max_latency_ms = 50
max_cost_usd_per_million = 0.015
"""
TENANTS = parse(TENANTS_TOML, "tenants")
