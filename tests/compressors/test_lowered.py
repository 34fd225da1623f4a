"""Lowering to several engines: which refusals are told, and that the process keeps its threads."""

from __future__ import annotations

import torch

from compressors import lowered
from compressors.errors import BuildError, NotSupported
from compressors.threads import threads_kept


def test_a_program_on_one_thread_leaves_training_its_own() -> None:
    before = torch.get_num_threads()
    with threads_kept():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


def test_only_when_every_engine_refuses_is_there_no_variant() -> None:
    failed: dict[str, Exception] = {
        "a": NotSupported("no such arithmetic"),
        "b": BuildError("cannot be traced"),
    }
    error = lowered._why_none(failed)
    assert type(error) is BuildError
    assert str(error) == "a: no such arithmetic; b: BuildError: cannot be traced"
    assert type(lowered._why_none({"a": failed["a"]})) is NotSupported
