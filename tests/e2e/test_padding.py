"""Declared padding through the front door: requests of several lengths, each its own answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from router.card import TensorSpec
from router.padding import PaddedInput, Padding
from tests.e2e.harness import Server
from tests.stores import write_variant

IDS = TensorSpec(name="ids", datatype="INT64", shape=(-1, -1))
PADDING = Padding(inputs=(PaddedInput(input="ids", dimension=1),), buckets=(4, 8))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    # An engine that cannot bear rows of 3, which it is never shown where they are filled up to 4.
    for model, padding in (("padded", (PADDING,)), ("plain", ())):
        write_variant(
            models, model, "fp32", inputs=(IDS,), padding=padding, mirror=True, fail_length=3
        )
    with Server(models, max_batch=8) as server:
        yield server


def ask(server: Server, model: str, length: int, first: int) -> httpx.Response:
    tensor = {
        "name": "ids", "datatype": "INT64", "shape": [1, length], "data": [[first] * length],
    }  # fmt: skip
    return server.client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})


def test_rows_are_filled_up_where_the_card_says_so_and_nowhere_else(server: Server) -> None:
    assert ask(server, "padded", 3, 1).status_code == 200
    assert ask(server, "plain", 3, 1).status_code == 500
    assert ask(server, "plain", 4, 1).status_code == 200


def test_everybody_gets_their_own(server: Server) -> None:
    lengths = [1, 2, 3, 4, 5, 8, 9, 20] * 4
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(
            lambda each: ask(server, "padded", each[1], each[0]), enumerate(lengths, 1)
        )
    for number, answer in enumerate(answers, 1):
        assert answer.status_code == 200
        assert answer.json()["outputs"][0]["data"][0] == number
