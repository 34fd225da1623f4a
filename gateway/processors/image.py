"""PNG and JPEG into pixels (the package Pillow; extra `processors`).

Nothing else that Pillow knows is opened. A picture says how large it is before its pixels are
decoded, so that one which would fill the memory is refused unread (CWE-409).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engines import NUMPY_TYPES, Tensor
from gateway.processors import Process, ProcessorError, check_size
from router.card import TensorSpec
from router.errors import InvalidRequest
from router.processor import ImageProcessor

_FORMATS = ("PNG", "JPEG")


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
        check_size(record.input, pictures.size, height * width * channels * kind.itemsize)
        rows: list[Tensor] = []
        for row, raw in enumerate(pictures.reshape(-1).tolist()):
            go_on()
            rows.append(pixels(row, raw))
        return {record.pixels: np.stack(rows)}

    def pixels(row: int, raw: bytes) -> Tensor:
        picture = fitted(decoded(row, raw))
        values = np.asarray(picture, np.float32).reshape(height, width, channels)
        if record.mode == "BGR":
            values = values[:, :, ::-1]
        values = (values * np.float32(record.scale) - mean) / deviation
        if first:
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(_as_kind(values, kind))

    def decoded(row: int, raw: bytes) -> Any:
        field, shown = f"inputs.{record.input}", f"{len(raw)} bytes in row {row}"
        if len(raw) > record.max_bytes:
            raise InvalidRequest(field, shown, f"at most {record.max_bytes} bytes")
        try:
            picture = Image.open(io.BytesIO(raw), formats=_FORMATS)
            if picture.width * picture.height <= record.max_pixels:
                picture.load()
                if picture.mode.startswith("I"):
                    picture = Image.fromarray(_of_16_bits(np.asarray(picture)))
                return ImageOps.exif_transpose(picture).convert(opaque)
        except Exception as error:  # a broken picture raises whatever its decoder comes upon
            raise InvalidRequest(field, shown, f"a picture in {' or '.join(_FORMATS)}") from error
        raise InvalidRequest(
            field,
            f"{picture.width}x{picture.height} pixels in row {row}",
            f"at most {record.max_pixels} pixels",
        )

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
