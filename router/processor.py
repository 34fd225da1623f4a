"""Processors as a card records them: what turns what apps have into a network's inputs.

A processor is data; the code that follows it is the gateway's (`gateway.processors`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# A file of the artifact; it holds no separator.
FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(ge=1)]
Filename = Annotated[str, Field(pattern=FILE_PATTERN)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TextProcessor(_Record):
    """Text into token ids, by a `tokenizer.json` of the artifact."""

    kind: Literal["text"] = "text"
    input: str
    """What clients send it as: BYTES, one text in UTF-8 a row."""
    tokenizer: Filename = "tokenizer.json"
    tokenizer_digest: Digest
    """SHA-256 of that file: variants of one model must agree on it."""
    max_tokens: Positive
    """Longer texts are cut, special tokens included."""
    max_bytes: Positive = 64 << 10
    """Of one text; a longer one is refused, for all of it is tokenised before it is cut."""
    ids: str
    """The input that the token ids fill, (rows, tokens)."""
    mask: str | None = None
    """The input that is 1 where a token counts and 0 where it pads."""
    types: str | None = None
    """The input that the segment ids fill."""

    @property
    def fills(self) -> tuple[str, ...]:
        """The inputs that clients need not send."""
        return tuple(name for name in (self.ids, self.mask, self.types) if name is not None)


class ImageProcessor(_Record):
    """PNG and JPEG into pixels: turned upright, converted, resized, cropped, scaled, normalised."""

    kind: Literal["image"] = "image"
    input: str
    """What clients send it as: BYTES, one file a row."""
    pixels: str
    """The input that it fills: (rows, channels, height, width), or channels last."""
    mode: Literal["L", "RGB", "BGR"] = "RGB"
    layout: Literal["channels-first", "channels-last"] = "channels-first"
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How another aspect ratio is met: by none, by cutting what the shorter side leaves over, or
    by filling up what the longer side leaves over with 0."""
    resample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1 / 255
    """What each value from 0 to 255 is multiplied with, before the mean is taken off."""
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = (0.0,)
    deviation: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (1.0,)
    """For each channel in the order of `mode`, or one for all."""
    max_pixels: Positive = 16 << 20
    """Of a picture as it comes; a larger one is refused before it is decoded."""
    max_bytes: Positive = 16 << 20

    @property
    def fills(self) -> tuple[str, ...]:
        """The inputs that clients need not send."""
        return (self.pixels,)

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> Self:
        channels = 1 if self.mode == "L" else 3
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if len(values) not in (1, channels):
                raise ValueError(f"{name} must hold 1 value or {channels}, got {len(values)}")
        return self


Processor = Annotated[TextProcessor | ImageProcessor, Field(discriminator="kind")]
