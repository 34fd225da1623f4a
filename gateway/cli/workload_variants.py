"""The variants of a workload: those of a store, or of a table in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gateway.cli.console import BAD_VALUE, STORE_PROBLEM, fail, warn
from gateway.cli.store import read
from gateway.lifecycle import catalog
from gateway.lifecycle.catalog import Entry
from gateway.settings import Settings
from router.errors import GearshiftError
from router.menu import Menu
from router.simulate import service, table
from router.simulate.mix import Mix
from router.simulate.service import Noise, Service

# Menus by model, and how long batches take by (model, variant).
Variants = tuple[dict[str, Menu], dict[tuple[str, str], Service]]


def of_table(path: Path, tenants: Mix, noise: Noise, operator: Settings) -> Variants:
    """The variants in the table at `path`, of the models that the tenants ask for."""
    try:
        parsed = table.parse(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        fail(f"--variants: {path}: cannot be read: {error.strerror}", BAD_VALUE)
    except UnicodeDecodeError as error:
        fail(f"--variants: {path}: expected text in UTF-8: {error}", BAD_VALUE)
    except GearshiftError as error:
        fail(f"--variants: {error}", BAD_VALUE)
    menus: dict[str, Menu] = {}
    services: dict[tuple[str, str], Service] = {}
    for model in _used(list(parsed), tenants, str(path)):
        rows = parsed[model]
        for row in rows:
            key = model, row.name
            services[key] = service.service(row.latency, noise, operator.max_batch)
        menus[model] = table.menu(
            model,
            tuple(replace(row, latency=service.noisy(row.latency, noise)) for row in rows),
            percentile=operator.latency_percentile,
            usd_per_lane_hour=operator.usd_per_lane_hour,
            max_batch=operator.max_batch,
        )
    return menus, services


def of_store(
    path: str, model: str | None, tenants: Mix, noise: Noise, operator: Settings
) -> Variants:
    """The variants in the store at `path`, of the models that the tenants ask for."""
    found = read(path, operator)
    for problem in found.problems:
        warn(f"left out: {problem}")
    there = list(found.models)
    if model is not None and model not in there:
        known = ", ".join(there) or "none that is whole"
        fail(f"{path}: unknown model {model!r}; there are {known}", STORE_PROBLEM)
    if not there:
        fail(f"{path}: nothing here can be served", STORE_PROBLEM)
    menus: dict[str, Menu] = {}
    services: dict[tuple[str, str], Service] = {}
    for name in _used(there if model is None else [model], tenants, path):
        entries = found.models[name]
        for entry in entries.values():
            key = name, entry.card.variant
            services[key] = service.service(entry.card.latency, noise, operator.max_batch)
        menus[name] = catalog.menu_of(
            {key: _noisy(entry, noise) for key, entry in entries.items()},
            percentile=operator.latency_percentile,
            usd_per_lane_hour=operator.usd_per_lane_hour,
            max_batch=operator.max_batch,
        )
    return menus, services


def _noisy(entry: Entry, noise: Noise) -> Entry:
    latency = service.noisy(entry.card.latency, noise)
    return replace(entry, card=entry.card.model_copy(update={"latency": latency}))


def _used(there: list[str], tenants: Mix, where: str) -> list[str]:
    """The models that the tenants ask for, in the order of `there`."""
    known = ", ".join(there)
    for tenant in tenants.tenants:
        if not tenant.model and len(there) > 1:
            fail(
                f"{where}: tenant {tenant.name!r}: model: expected one of {known}, got nothing; "
                "name one as MODEL, or in the mix",
                BAD_VALUE,
            )
        if tenant.model and tenant.model not in there:
            fail(
                f"{where}: tenant {tenant.name!r}: model: expected one of {known}, "
                f"got {tenant.model!r}",
                BAD_VALUE,
            )
    asked = {tenant.model or there[0] for tenant in tenants.tenants}
    return [name for name in there if name in asked]
