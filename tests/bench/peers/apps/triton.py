"""The network in Triton: `python -m tests.bench.peers.apps.triton FOLDER PORT`."""

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from tests.bench.peers import network
from tests.bench.peers.contract import CLASSES, MAX_BATCH, PIXELS, WAIT_S


def main() -> None:
    """Serve until SIGTERM, on the port and the two after it."""
    port = int(sys.argv[2])
    run = network.load(Path(sys.argv[1]))

    @batch
    def infer(**inputs: Any) -> dict[str, Any]:
        return {network.OUTPUT: run(inputs[network.INPUT])}

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        grpc_address="127.0.0.1",
        grpc_port=port + 1,
        metrics_port=port + 2,
        log_verbose=0,
    )
    # It stops cleanly on an interrupt alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="network",
            infer_func=infer,
            inputs=[Tensor(name=network.INPUT, dtype=np.float32, shape=(PIXELS,))],
            outputs=[Tensor(name=network.OUTPUT, dtype=np.float32, shape=(CLASSES,))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=round(WAIT_S * 1e6)),
            ),
        )
        triton.serve()


if __name__ == "__main__":
    main()
