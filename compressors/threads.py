"""PyTorch's number of threads, which is the process's own and not an engine's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads_kept() -> Iterator[None]:
    """Set it back in the end, whatever an engine on one thread set it to meanwhile.

    The next network would be trained on that one.
    """
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
