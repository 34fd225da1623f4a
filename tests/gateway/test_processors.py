"""Processors: text into tokens, pictures into pixels, and nothing else into anything."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway import processors
from gateway.door import Door
from gateway.engines import Tensor
from gateway.messages import InferRequest
from gateway.processors import Process, ProcessorError
from gateway.processors import image as image_module
from gateway.processors import text as text_module
from gateway.wire import byte_elements
from router.card import TensorSpec, VariantCard
from router.constraints import Constraints
from router.errors import CallerLeft, DeadlinePassed, InvalidRequest
from router.processor import ImageProcessor, TextProcessor
from tests.processed import picture, text_processor, tokenizer, tokens
from tests.stores import write_variant


def elements(*raw: bytes) -> Tensor:
    return byte_elements.as_tensor(raw, (len(raw),))


Made = Callable[[Tensor], dict[str, Tensor]]


def whole(process: Process) -> Made:
    """The process for somebody who waits until its end."""
    return lambda rows: process(rows, lambda: None)


def text(folder: Path, size: int = -1, datatype: str = "INT64", **changes: Any) -> Made:
    (folder / "tokenizer.json").write_bytes(tokenizer())
    record = text_processor(**changes)
    specs = {name: tokens(name, size, datatype) for name in ("ids", "mask", "types")}
    return whole(processors.open_one(record, folder, specs))


def test_the_kinds_are_the_files() -> None:
    assert processors.names() == ["image", "text"]


def test_text_is_padded_to_the_longest_of_the_request(tmp_path: Path) -> None:
    made = text(tmp_path)(elements(b"the cat", b"the cat sat on", b"unheard of"))
    assert made["ids"].tolist() == [[1, 3, 4, 0, 0], [1, 3, 4, 5, 6], [1, 2, 2, 0, 0]]
    assert made["mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert made["ids"].dtype == np.int64
    assert "types" not in made


def test_text_is_cut_at_the_card_s_length(tmp_path: Path) -> None:
    process = text(tmp_path)
    assert process(elements(b"the " * 100))["ids"].shape == (1, 6)
    process = text(tmp_path, size=4, datatype="INT32", types="types")
    made = process(elements(b"the cat sat on the mat", b""))
    assert made["ids"].tolist() == [[1, 3, 4, 5], [1, 0, 0, 0]]
    assert made["types"].tolist() == [[0] * 4] * 2
    assert made["ids"].dtype == np.int32


def test_text_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"inputs\.text: expected text in UTF-8 .* row 1"):
        text(tmp_path)(elements(b"the", b"\xff\xfe"))


def test_a_text_that_is_too_long_is_refused_unread(tmp_path: Path) -> None:
    long = b"cat " * 16_385
    process = text(tmp_path)
    assert process(elements(long[: 64 << 10]))["ids"].shape == (1, 6)
    expected = r"inputs\.text: expected at most 65536 bytes, got '65540 bytes in row 1'"
    with pytest.raises(InvalidRequest, match=expected):
        process(elements(b"the", long))
    with pytest.raises(InvalidRequest, match="at most 8 bytes"):
        text(tmp_path, max_bytes=8)(elements("ñañañ!".encode()))


def test_more_rows_than_may_be_made_are_refused_untokenised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "MOST_BYTES", 1000 * 4 * 2 * 8)
    at_once = text(tmp_path, size=4, max_tokens=4)
    most = 1000
    few = np.broadcast_to(elements(b"\xff"), (most + 1,))  # which is no text
    expected = rf"inputs\.text: expected at most {most} rows, for each becomes 64 bytes"
    with pytest.raises(InvalidRequest, match=expected):
        at_once(few)
    with pytest.raises(InvalidRequest, match="text in UTF-8"):
        at_once(few[1:])


def test_one_long_text_among_many_short_ones_is_refused_before_they_are_padded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "MOST_BYTES", 100 * 3 * 2 * 8)
    process = text(tmp_path)
    assert process(elements(*[b"the cat"] * 100))["ids"].shape == (100, 3)
    with pytest.raises(InvalidRequest, match="at most 75 rows, for each becomes 64 bytes"):
        process(elements(*[b"the cat"] * 99, b"the cat sat"))


def test_more_pictures_than_may_be_made_are_refused_undecoded(tmp_path: Path) -> None:
    process = image(tmp_path, 1, 1024, 1024, mode="L")
    with pytest.raises(InvalidRequest, match=r"at most 16 rows, .* got '17 rows'"):
        process(elements(*[b"no picture"] * 17))
    with pytest.raises(InvalidRequest, match="a picture in PNG or JPEG"):
        process(elements(*[b"no picture"] * 16))


def test_more_text_than_one_request_may_bring_is_refused_untokenised(tmp_path: Path) -> None:
    process = text(tmp_path)
    rows = text_module.MOST_COST // 64
    none = elements(b"\xff")
    with pytest.raises(InvalidRequest, match=rf"at least 64, got '4194368 in {rows + 1} rows'"):
        process(np.broadcast_to(none, (rows + 1,)))
    with pytest.raises(InvalidRequest, match="text in UTF-8"):
        process(np.broadcast_to(none, (rows,)))
    expected = r"inputs\.text: expected at most 4194304 bytes of text together, .* got '4194368 in"
    long = b"\xff" * (64 << 10)
    with pytest.raises(InvalidRequest, match=expected):
        process(elements(*[long] * 64, b"a"))
    with pytest.raises(InvalidRequest, match="text in UTF-8"):
        process(elements(*[long] * 64))


def test_one_text_is_allowed_however_long_the_card_lets_it_be(tmp_path: Path) -> None:
    process = text(tmp_path, max_bytes=64 << 20)
    with pytest.raises(InvalidRequest, match="text in UTF-8"):
        process(elements(b"\xff" * (text_module.MOST_COST + 1)))


def test_short_texts_take_no_more_memory_than_their_tensors_do(tmp_path: Path) -> None:
    process = text(tmp_path, types="types")
    rows = np.broadcast_to(elements(b"the"), (30_000,))
    tracemalloc.start()
    try:
        made = process(rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made["ids"].shape == (30_000, 2)
    # The tokens, the tensors, and two references and a text of some 60 bytes for each row.
    assert peak < 2 * sum(values.nbytes for values in made.values()) + 100 * rows.size


@pytest.mark.parametrize("size", [-1, 6])
def test_texts_of_many_groups_are_padded_alike(size: int, tmp_path: Path) -> None:
    some = [b"the", b"", b"cat " * 500, b"the cat sat"]
    made = text(tmp_path, size=size, types="types")(elements(*some * 300))
    ids = [[1, 3, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 4, 4, 4, 4, 4], [1, 3, 4, 5, 0, 0]]
    assert made["ids"].tolist() == ids * 300
    assert made["mask"].tolist() == [[int(one > 0) for one in row] for row in ids] * 300
    assert made["types"].tolist() == [[0] * 6] * 1200


def test_more_pixels_than_one_request_may_bring_are_refused_undecoded(tmp_path: Path) -> None:
    process = image(tmp_path, 1, 2, 2, mode="L")
    large = bomb(4096, 4096)  # of 16 Mi pixels each, which are not there
    expected = r"inputs\.file: expected at most 134217728 pixels together, .* got '134225920 in 9"
    with pytest.raises(InvalidRequest, match=expected):
        process(elements(*[large] * 8, picture(GREY)))
    with pytest.raises(InvalidRequest, match="a picture in PNG or JPEG"):
        process(elements(*[large] * 8))
    rows = image_module.MOST_PIXELS // 8192
    with pytest.raises(InvalidRequest, match=rf"at least 8192, got '134225920 in {rows + 1} rows'"):
        process(np.broadcast_to(elements(b""), (rows + 1,)))
    with pytest.raises(InvalidRequest, match="a picture in PNG or JPEG"):
        process(np.broadcast_to(elements(b""), (rows,)))


def test_pictures_take_no_more_memory_than_their_tensor_does(tmp_path: Path) -> None:
    process = image(tmp_path, 1, 64, 64, mode="L")
    rows = np.broadcast_to(elements(picture(GREY)), (500,))
    tracemalloc.start()
    try:
        made = process(rows)["x"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * made.nbytes


def test_texts_are_tokenised_a_few_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer())
    specs = {name: tokens(name) for name in ("ids", "mask")}
    process = processors.open_one(text_processor(), tmp_path, specs)
    looks: list[int] = []
    made = process(elements(*[b"cat " * 500, b"the cat"] * 50), lambda: looks.append(1))
    assert made["ids"].tolist() == [[1, 4, 4, 4, 4, 4], [1, 3, 4, 0, 0, 0]] * 50
    assert made["mask"].tolist() == [[1] * 6, [1] * 3 + [0] * 3] * 50
    assert len(looks) >= 5
    assert_stops(process, elements(*[b"cat " * 500] * 50))


class NobodyWaitsError(Exception):
    pass


def assert_stops(process: Process, rows: Tensor) -> None:
    """That what nobody waits for any more is not gone on with."""
    looks: list[int] = []

    def go_on() -> None:
        looks.append(1)
        if len(looks) > 1:
            raise NobodyWaitsError

    with pytest.raises(NobodyWaitsError):
        process(rows, go_on)


@pytest.mark.parametrize("why", ["deadline", "caller", "cancelled"])
def test_a_request_that_is_given_up_is_not_gone_on_with(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stopped = threading.Event(), threading.Event()

    def slow(_: Tensor, go_on: Callable[[], None]) -> dict[str, Tensor]:
        begun.set()
        try:
            for _ in range(5000):
                time.sleep(0.001)
                go_on()
        except DeadlinePassed:
            stopped.set()
            raise
        return {"ids": np.zeros((1, 1), np.int64)}

    monkeypatch.setattr(processors, "open_one", lambda *_: slow)
    ports = {"inputs": (tokens("ids"), tokens("mask"))}
    folder = write_variant(tmp_path, "words", "fp32", processor=text_processor(), **ports)
    door = Door(VariantCard.model_validate_json((folder / "card.json").read_bytes()))
    door.open(folder)
    limit_ms = 30.0 if why == "deadline" else None

    async def left() -> None:
        await asyncio.sleep(0 if why == "caller" else 60)

    async def ask() -> None:
        demanded = Constraints(max_latency_ms=limit_ms)
        inputs = {"text": elements(b"the cat")}
        request = InferRequest("words", inputs, 1, demanded, time.monotonic())
        asked = asyncio.ensure_future(door.through(request, demanded, 1, left))
        if why == "cancelled":
            await asyncio.to_thread(begun.wait, 5)
            asked.cancel()
        raised = {"deadline": DeadlinePassed, "caller": CallerLeft}
        with pytest.raises(raised.get(why, asyncio.CancelledError)):
            await asked
        assert await asyncio.to_thread(stopped.wait, 2.5)

    asyncio.run(ask())


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    specs = {name: tokens(name) for name in ("ids", "mask")}
    for raw in (b"{}", b"not json", b""):
        (tmp_path / "tokenizer.json").write_bytes(raw)
        with pytest.raises(ProcessorError, match=r"tokenizer\.json is not the one"):
            processors.open_one(text_processor(), tmp_path, specs)
        record = text_processor(tokenizer_digest=hashlib.sha256(raw).hexdigest())
        with pytest.raises(ProcessorError, match=r"tokenizer\.json is no tokenizer"):
            processors.open_one(record, tmp_path, specs)


def image(folder: Path, *sizes: int, datatype: str = "FP32", **changes: Any) -> Made:
    record = ImageProcessor.model_validate({"input": "file", "pixels": "x", **changes})
    spec = TensorSpec.model_validate({"name": "x", "datatype": datatype, "shape": (-1, *sizes)})
    return whole(processors.open_one(record, folder, {"x": spec}))


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3) * 7


def test_pixels_come_as_they_are(tmp_path: Path) -> None:
    made = image(tmp_path, 1, 3, 4, mode="L", scale=1.0)(elements(picture(GREY), picture(GREY)))
    np.testing.assert_array_equal(made["x"], np.stack([GREY[None]] * 2).astype("f4"))
    made = image(tmp_path, 3, 3, 4, scale=1.0)(elements(picture(COLOUR)))
    np.testing.assert_array_equal(made["x"][0], COLOUR.transpose(2, 0, 1))
    made = image(tmp_path, 3, 4, 3, scale=1.0, layout="channels-last", mode="BGR")(
        elements(picture(COLOUR))
    )
    np.testing.assert_array_equal(made["x"][0], COLOUR[:, :, ::-1])
    made = image(tmp_path, 3, 4, 1, layout="channels-last", mode="L", scale=1.0, datatype="UINT8")(
        elements(picture(GREY))
    )
    np.testing.assert_array_equal(made["x"][0, :, :, 0], GREY)


def test_grey_of_16_bits_is_brought_to_8(tmp_path: Path) -> None:
    process = image(tmp_path, 1, 3, 4, mode="L", scale=1.0)
    deep = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(process(elements(picture(deep)))["x"][0, 0], GREY)
    near = np.full((3, 4), 1000, np.uint16)
    assert set(process(elements(picture(near)))["x"].flat) == {4.0}  # 1000 / 65535 of 255
    colour = image(tmp_path, 3, 3, 4, scale=1.0)
    np.testing.assert_array_equal(colour(elements(picture(deep)))["x"][0], np.stack([GREY] * 3))


def test_pictures_are_decoded_one_at_a_time() -> None:
    record = ImageProcessor(input="file", pixels="x")
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 3, 3, 4))
    process = processors.open_one(record, Path(), {"x": spec})
    assert_stops(process, elements(picture(COLOUR), b"no picture"))


def test_pixels_are_scaled_and_normalised_by_channel(tmp_path: Path) -> None:
    how = {"mean": (0.1, 0.2, 0.3), "deviation": (0.5, 1.0, 2.0)}
    made = image(tmp_path, 3, 3, 4, **how)(elements(picture(COLOUR)))
    expected = (COLOUR / 255 - how["mean"]) / how["deviation"]
    np.testing.assert_allclose(made["x"][0], expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)


def test_a_picture_of_another_size_is_fitted(tmp_path: Path) -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    for fit, mean in (("stretch", 200 / 3), ("crop", 200.0), ("pad", 200 / 9)):
        process = image(tmp_path, 1, 30, 30, mode="L", scale=1.0, fit=fit, resample="nearest")
        assert process(elements(picture(wide)))["x"].mean() == pytest.approx(mean, rel=0.02)


def test_jpeg_upright_and_grey_pictures_in_colour(tmp_path: Path) -> None:
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held sideways
    flat = np.zeros((16, 32), np.uint8)
    flat[:, 16:] = 255
    made = image(tmp_path, 3, 32, 16)(elements(picture(flat, "JPEG", exif=turned)))["x"]
    assert made.shape == (1, 3, 32, 16)
    assert made[0, :, :14].max() < 0.1 and made[0, :, 18:].min() > 0.9


def test_what_is_no_picture(tmp_path: Path) -> None:
    process = image(tmp_path, 3, 3, 4)
    good = picture(COLOUR)
    for raw in (
        b"", b"GIF89a", good[: len(good) // 2], picture(COLOUR, "GIF"), picture(COLOUR, "BMP"),
        picture(COLOUR, "TIFF"), b"\x89PNG\r\n\x1a\n" + bytes(100), b"%PDF-1.4",
        picture(COLOUR, "JPEG")[:200],
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match=r"inputs\.file: expected a picture in PNG or"):
            process(elements(good, raw))


@given(st.binary(max_size=100), st.integers(0, 60), st.sampled_from(["PNG", "JPEG"]))
def test_any_bytes_are_a_picture_or_refused(raw: bytes, at: int, kind: str) -> None:
    process = image(Path(), 3, 3, 4)
    good = picture(COLOUR, kind)
    for bad in (raw, good[:at] + raw + good[at + len(raw) :]):
        with contextlib.suppress(InvalidRequest):
            assert process(elements(bad))["x"].shape == (1, 3, 3, 4)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is as large as that."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    process = image(tmp_path, 3, 3, 4, max_pixels=100, max_bytes=10_000)
    for width, height in ((11, 10), (60_000, 60_000), (2**31 - 1, 1)):
        expected = "at most 100 pixels" if width < 2**31 - 1 else "pixels|a picture"
        with pytest.raises(InvalidRequest, match=expected):
            process(elements(bomb(width, height)))
    with pytest.raises(InvalidRequest, match="at most 10000 bytes"):
        process(elements(picture(COLOUR) + bytes(10_000)))


def test_channels_must_be_the_mode_s(tmp_path: Path) -> None:
    with pytest.raises(ProcessorError, match="L has 1 channels, x has 3"):
        image(tmp_path, 3, 3, 4, mode="L")


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "CMYK"}, {"mean": (0.1, 0.2)}, {"deviation": (0.0,)}, {"scale": 0.0},
        {"max_pixels": 0}, {"fit": "squeeze"}, {"colour": "red"},
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ImageProcessor.model_validate({"input": "file", "pixels": "x", **changes})


@pytest.mark.parametrize("name", ["../tokenizer.json", "a/b", ".hidden", ""])
def test_no_path_leads_out_of_the_artifact(name: str) -> None:
    with pytest.raises(ValidationError):
        TextProcessor(
            input="text", tokenizer=name, tokenizer_digest="0" * 64, max_tokens=4, ids="ids"
        )
