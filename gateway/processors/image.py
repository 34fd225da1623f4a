"""PNG and JPEG into pixels (the package Pillow; extra `processors`).

Nothing else that Pillow knows is opened. A picture says how large it is before its pixels are
decoded, so that one which would fill the memory is refused unread (CWE-409), and so are many that
would take long.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.processors import Process, ProcessorError, check_size, check_work
from router.card import TensorSpec
from router.errors import InvalidRequest
from router.processor import ImageProcessor

_FORMATS = ("PNG", "JPEG")
_A_PICTURE = f"a picture in {' or '.join(_FORMATS)}"
# Decoded for one request: some seconds of one core, whatever the body's size.
MOST_PIXELS = 128 << 20
# What a picture costs beside its pixels, in pixels: opening it, and the network's own size.
_LEAST_PIXELS = 8192


def open(record: ImageProcessor, folder: Path, inputs: Mapping[str, TensorSpec]) -> Process:
    """See `gateway.processors`; `folder` holds nothing that it needs.

    Raises:
        ProcessorError: the package is missing, or the sizes are not the mode's.
    """
    del folder
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ProcessorError(
            "the package pillow is not installed: pip install 'gearshift[processors]'"
        ) from error
    Image.MAX_IMAGE_PIXELS = None  # the limit is the card's, and is looked at before decoding
    spec = inputs[record.pixels]
    channels = 1 if record.mode == "L" else 3
    first = record.layout == "channels-first"
    sizes = spec.shape[1:]
    found, (height, width) = (sizes[0], sizes[1:]) if first else (sizes[2], sizes[:2])
    if found != channels:
        raise ProcessorError(f"{record.mode} has {channels} channels, {spec.name} has {found}")
    kind = NUMPY_TYPES[spec.datatype]
    mean = np.array(record.mean, np.float32)
    deviation = np.array(record.deviation, np.float32)
    resample = Image.Resampling[record.resample.upper()]
    opaque = "L" if record.mode == "L" else "RGB"

    def process(pictures: Tensor, go_on: Callable[[], None]) -> dict[str, Tensor]:
        rows = pictures.size
        check_size(record.input, rows, height * width * channels * kind.itemsize)
        if rows * max(record.max_pixels, _LEAST_PIXELS) > MOST_PIXELS:
            costs = areas(pictures, go_on)
            check_work(
                record.input, rows, costs, most=MOST_PIXELS, least=_LEAST_PIXELS, unit="pixels"
            )
        made = np.empty((rows, *sizes), kind)
        for row, raw in enumerate(pictures.flat):
            go_on()
            made[row] = pixels(row, raw)
        return {record.pixels: made}

    def pixels(row: int, raw: bytes) -> Tensor:
        picture = fitted(decoded(row, raw))
        values = np.asarray(picture, np.float32).reshape(height, width, channels)
        if record.mode == "BGR":
            values = values[:, :, ::-1]
        values = (values * np.float32(record.scale) - mean) / deviation
        if first:
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(_as_kind(values, kind))

    def refused(row: int, raw: bytes, expected: str) -> InvalidRequest:
        return InvalidRequest(f"inputs.{record.input}", f"{len(raw)} bytes in row {row}", expected)

    def opened(row: int, raw: bytes) -> Any:
        """A picture whose size is known and allowed, and whose pixels are not decoded yet."""
        if len(raw) > record.max_bytes:
            raise refused(row, raw, f"at most {record.max_bytes} bytes")
        try:
            picture = Image.open(io.BytesIO(raw), formats=_FORMATS)
        except Exception as error:  # a broken picture raises whatever its decoder comes upon
            raise refused(row, raw, _A_PICTURE) from error
        if area(picture) > record.max_pixels:
            came = f"{picture.width}x{picture.height} pixels in row {row}"
            expected = f"at most {record.max_pixels} pixels"
            raise InvalidRequest(f"inputs.{record.input}", came, expected)
        return picture

    def decoded(row: int, raw: bytes) -> Any:
        picture = opened(row, raw)
        try:
            picture.load()
            if picture.mode.startswith("I"):
                picture = Image.fromarray(_of_16_bits(np.asarray(picture)))
            return ImageOps.exif_transpose(picture).convert(opaque)
        except Exception as error:
            raise refused(row, raw, _A_PICTURE) from error

    def areas(pictures: Tensor, go_on: Callable[[], None]) -> Iterator[int]:
        for row, raw in enumerate(pictures.flat):
            go_on()
            yield area(opened(row, raw))

    def area(picture: Any) -> int:
        return int(picture.width) * int(picture.height)

    def fitted(picture: Any) -> Any:
        if record.fit == "crop":
            return ImageOps.fit(picture, (width, height), resample)
        if record.fit == "pad":
            return ImageOps.pad(picture, (width, height), resample)
        if picture.size == (width, height):
            return picture
        return picture.resize((width, height), resample)

    return process


def _of_16_bits(values: Tensor) -> Tensor:
    """Grey of 0 to 65535 as 0 to 255; Pillow would cut off at 255 what is brighter."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _as_kind(values: Tensor, kind: np.dtype[Any]) -> Tensor:
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return np.clip(np.rint(values), limits.min, limits.max).astype(kind)
    return values.astype(kind)
