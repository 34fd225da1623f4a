"""The response cache: whatever differs in anything is another answer, and memory stays bounded."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.answers import Answers
from gateway.engines import NUMPY_TYPES, Tensor

ROW = np.arange(4, dtype="<f4").reshape(1, 4)


def mark(**inputs: Tensor) -> bytes:
    return asyncio.run(Answers(1).mark(inputs))


def test_whatever_differs_has_another_mark() -> None:
    text = np.array([b"ab", b"c"], np.object_)
    marks = [
        mark(x=ROW), mark(y=ROW), mark(x=ROW + 1), mark(x=-ROW), mark(x=ROW.reshape(4, 1)),
        mark(x=ROW.view("<i4")), mark(x=ROW, y=ROW), mark(x=ROW.astype("<f8")),
        mark(x=ROW.astype(NUMPY_TYPES["BF16"])), mark(x=text), mark(x=text[::-1]),
        mark(x=np.array([b"a", b"bc"], np.object_)), mark(x=np.array([b"abc"], np.object_)),
        mark(x=np.zeros((1, 300_000), "<f4")), mark(x=np.ones((1, 300_000), "<f4")),
        mark(x=np.zeros((1, 1), bool)), mark(x=np.ones((1, 1), bool)),
    ]  # fmt: skip
    assert len(set(marks)) == len(marks)


def test_the_same_bytes_have_the_same_mark_wherever_they_lie() -> None:
    wide = np.zeros((1, 8), "<f4")
    wide[:, ::2] = ROW
    assert mark(x=wide[:, ::2]) == mark(x=ROW) == mark(x=ROW.copy())
    assert mark(y=ROW, x=wide) == mark(x=wide, y=ROW)


def test_an_answer_belongs_to_one_build_of_one_variant_of_one_model() -> None:
    answers = Answers(1 << 20)
    answers.keep("m", "fp32", "one", b"k", {"y": ROW})
    assert answers.find("m", "fp32", "one", b"k") is not None
    for other in (
        ("n", "fp32", "one", b"k"), ("m", "int8", "one", b"k"), ("m", "fp32", "two", b"k"),
        ("m", "fp32", "one", b"j"),
    ):  # fmt: skip
        assert answers.find(*other) is None


def test_an_answer_does_not_keep_its_batch_alive() -> None:
    answers, batch = Answers(1 << 20), np.zeros((32, 100), "<f4")
    answers.keep("m", "v", "b", b"k", {"y": batch[3:4]})
    (found,) = answers.find("m", "v", "b", b"k").values()
    assert found.base is None
    batch[:] = 7
    assert found.max() == 0


def test_one_answer_never_takes_the_place_of_all() -> None:
    answers = Answers(10_000)
    answers.keep("m", "v", "b", b"small", {"y": ROW})
    answers.keep("m", "v", "b", b"large", {"y": np.zeros(2000, "<f4")})
    assert answers.find("m", "v", "b", b"large") is None
    assert answers.find("m", "v", "b", b"small") is not None


class Lru(RuleBasedStateMachine):
    """The least recently used go first, and the bytes are those of what is there."""

    LIMIT = 12_000

    def __init__(self) -> None:
        super().__init__()
        self.answers = Answers(self.LIMIT)
        self.used: list[bytes] = []

    @rule(key=st.integers(0, 20), size=st.integers(1, 400))
    def keep(self, key: int, size: int) -> None:
        name = bytes([key])
        self.answers.keep("m", "v", "b", name, {"y": np.full(size, key, "<f4")})
        if name not in self.used:
            self.used.append(name)
        while len(self.used) > len(self.answers._kept):
            self.used.pop(0)

    @rule(key=st.integers(0, 20))
    def find(self, key: int) -> None:
        name = bytes([key])
        found = self.answers.find("m", "v", "b", name)
        assert (found is not None) == (name in self.used)
        if found is not None:
            assert (found["y"] == key).all()
            self.used.remove(name)
            self.used.append(name)

    @invariant()
    def bounded(self) -> None:
        assert self.answers.bytes <= self.LIMIT
        assert self.answers.bytes == sum(size for _, size in self.answers._kept.values())
        assert [key[3] for key in self.answers._kept] == self.used


TestLru = Lru.TestCase


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=4))
def test_the_size_of_text_counts(texts: list[bytes]) -> None:
    answers = Answers(1 << 20)
    answers.keep("m", "v", "b", b"k", {"y": np.array(texts, np.object_)})
    assert answers.bytes > sum(map(len, texts))
