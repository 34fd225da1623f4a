"""What several files of the gateway's tests ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.trust import access
from tests.gateway.doors import Doors


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doors:
    """Doors on a ledger of their own. Exchanges follow each other at once, so no test waits."""
    monkeypatch.setattr(access, "_EXCHANGE_EVERY_S", 0.01)
    return Doors(tmp_path / "state")
