"""Processors: text into tokens, pictures into pixels, and nothing else into anything."""

from __future__ import annotations

import contextlib
import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway import byte_elements, processors
from gateway.engines import Tensor
from gateway.processors import Process, ProcessorError
from router.card import TensorSpec
from router.errors import InvalidRequest
from router.processor import ImageProcessor, TextProcessor
from tests.processed import picture, text_processor, tokenizer, tokens


def elements(*raw: bytes) -> Tensor:
    return byte_elements.as_tensor(raw, (len(raw),))


def text(folder: Path, size: int = -1, datatype: str = "INT64", **changes: Any) -> Process:
    (folder / "tokenizer.json").write_bytes(tokenizer())
    record = text_processor(**changes)
    specs = {name: tokens(name, size, datatype) for name in ("ids", "mask", "types")}
    return processors.open_one(record, folder, specs)


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


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    specs = {name: tokens(name) for name in ("ids", "mask")}
    for raw in (b"{}", b"not json", b""):
        (tmp_path / "tokenizer.json").write_bytes(raw)
        with pytest.raises(ProcessorError, match=r"tokenizer\.json is not the one"):
            processors.open_one(text_processor(), tmp_path, specs)
        record = text_processor(tokenizer_digest=hashlib.sha256(raw).hexdigest())
        with pytest.raises(ProcessorError, match=r"tokenizer\.json is no tokenizer"):
            processors.open_one(record, tmp_path, specs)


def image(folder: Path, *sizes: int, datatype: str = "FP32", **changes: Any) -> Process:
    record = ImageProcessor.model_validate({"input": "file", "pixels": "x", **changes})
    spec = TensorSpec.model_validate({"name": "x", "datatype": datatype, "shape": (-1, *sizes)})
    return processors.open_one(record, folder, {"x": spec})


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
