"""Which Gearshift this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("gearshift")
except PackageNotFoundError:  # run from a checkout that was never installed
    VERSION = "unknown"
