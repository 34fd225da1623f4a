"""The policies that can be replayed, by name."""

from __future__ import annotations

from gateway.cli.console import BAD_VALUE, fail
from router import policies
from router.simulate.trial import Workload

OURS = "gearshift"
STATIC = "static:"


def policy_names(workload: Workload) -> list[str]:
    """Every policy that can be replayed: ours, the baselines, and each variant by itself."""
    variants = dict.fromkeys(
        offer.name for menu in workload.menus.values() for offer in menu.offers
    )
    others = [name for name in policies.names() if name != OURS and not name.endswith(":")]
    return [OURS, *others, *[STATIC + name for name in variants]]


def choose_policies(text: str, workload: Workload) -> list[str]:
    """The policies that a list names; `all` is every one. Exit 2 for one that there is not."""
    there = policy_names(workload)
    chosen: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if name != "all" and name not in there:
            fail(f"unknown policy {name!r}; there are {', '.join(there)}", BAD_VALUE)
        chosen.extend(there if name == "all" else [name])
    return list(dict.fromkeys(chosen))
