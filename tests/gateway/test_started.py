"""When a server is ready: everything that may be asked of it then is answered."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway import memory
from gateway.journal import Journal
from gateway.metrics import Metrics
from gateway.processes.ending import Ending
from gateway.service import Service
from gateway.settings import Settings
from router.errors import NotReady
from tests.e2e.harness import PATIENCE_S
from tests.stores import write_three


def test_ready_only_once_the_operator_may_change_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last variant and the operator's first wish there is work still."""
    write_three(tmp_path)
    loaded, go_on = threading.Event(), threading.Event()

    def trim() -> None:
        loaded.set()
        assert go_on.wait(PATIENCE_S)

    monkeypatch.setattr(memory, "trim", trim)

    async def start() -> None:
        service = Service(Settings(models=tmp_path, lanes=1), Journal(Metrics()))
        starting = asyncio.create_task(service.start())
        try:
            assert await asyncio.to_thread(loaded.wait, PATIENCE_S)
            assert service.fleet.model("echo").settled
            with pytest.raises(NotReady, match="still starting"):
                await service.operator.disable("echo", "int8")
            assert not service.ready
            go_on.set()
            await starting
            assert service.ready
            await service.operator.disable("echo", "int8")
        finally:
            go_on.set()
            await service.stop(starting, Ending(PATIENCE_S))

    asyncio.run(start())
