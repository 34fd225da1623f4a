"""The network in Ray Serve: `python -m tests.bench.peers.apps.rayserve FOLDER PORT`."""

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

from tests.bench.peers import network
from tests.bench.peers.contract import MAX_BATCH, WAIT_S


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Network:
    """Plain JSON, or the bytes of the tensor."""

    def __init__(self, folder: str) -> None:
        self._run = network.load(Path(folder))

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=WAIT_S)
    async def predict(self, rows: list[Any]) -> list[Any]:
        return self._run(np.stack(rows)).tolist()

    async def __call__(self, request: Request) -> Any:
        if request.headers["content-type"] == "application/json":
            row = np.array((await request.json())["image"], np.float32)
        else:
            row = np.frombuffer(await request.body(), np.float32)
        return await self.predict(row)


def main() -> None:
    """Serve until SIGTERM."""
    folder, port = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 << 20,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        quiet = {"enable_access_log": False}
        serve.run(Network.options(logging_config=quiet).bind(folder), route_prefix="/")
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
