"""A store to look at in the console, and what visitors do on its page."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from router.card import TensorSpec
from tests.e2e.harness import PATIENCE_S
from tests.stores import write_variant

DIGITS = tuple("0123456789")
FRONTIER = (("fp32", 0.95, 40.0), ("int8", 0.93, 8.0), ("small", 0.90, 2.0))
SIDE = 12
SEVEN = ((0.3, 0.2), (0.7, 0.2), (0.45, 0.8))
# Each digit as one stroke.
STROKES = (
    ((0.5, 0.15), (0.35, 0.25), (0.3, 0.5), (0.35, 0.75), (0.5, 0.85), (0.65, 0.75), (0.7, 0.5),
     (0.65, 0.25), (0.5, 0.15)),
    ((0.4, 0.3), (0.52, 0.15), (0.52, 0.85)),
    ((0.32, 0.28), (0.42, 0.17), (0.58, 0.17), (0.66, 0.3), (0.6, 0.45), (0.33, 0.82), (0.7, 0.82)),
    ((0.33, 0.2), (0.5, 0.15), (0.64, 0.22), (0.64, 0.38), (0.5, 0.48), (0.64, 0.56), (0.66, 0.74),
     (0.5, 0.85), (0.33, 0.78)),
    ((0.55, 0.15), (0.3, 0.6), (0.72, 0.6), (0.6, 0.6), (0.6, 0.4), (0.6, 0.87)),
    ((0.66, 0.16), (0.38, 0.16), (0.36, 0.46), (0.52, 0.43), (0.66, 0.55), (0.64, 0.76),
     (0.48, 0.85), (0.33, 0.78)),
    ((0.6, 0.15), (0.42, 0.35), (0.34, 0.62), (0.42, 0.82), (0.58, 0.82), (0.66, 0.66),
     (0.56, 0.54), (0.4, 0.58)),
    SEVEN,
    ((0.5, 0.48), (0.36, 0.34), (0.4, 0.18), (0.6, 0.18), (0.64, 0.34), (0.5, 0.48), (0.34, 0.66),
     (0.4, 0.83), (0.6, 0.83), (0.66, 0.66), (0.5, 0.48)),
    ((0.64, 0.38), (0.5, 0.5), (0.36, 0.4), (0.38, 0.22), (0.54, 0.15), (0.64, 0.26), (0.64, 0.45),
     (0.6, 0.85)),
)  # fmt: skip


def write_models(models: Path) -> None:
    """Two models as slow as their cards say: one reads drawings, the other texts."""
    picture = (TensorSpec(name="image", datatype="FP32", shape=(-1, 1, SIDE, SIDE)),)
    scores = (TensorSpec(name="scores", datatype="FP32", shape=(-1, 10)),)
    for name, accuracy, ms in FRONTIER:
        write_variant(
            models,
            "drawn",
            name,
            accuracy=accuracy,
            latency_ms_at_1=ms,
            latency_ms_at_32=4 * ms,
            inputs=picture,
            outputs=scores,
            labels=DIGITS,
            delay_ms=ms,
            mirror=True,
        )
    zeros = {"name": "image", "datatype": "FP32", "shape": [1, 1, SIDE, SIDE]}
    body = {"inputs": [zeros | {"data": [0.5] * SIDE * SIDE}]}
    (models / "drawn" / "sample.json").write_text(json.dumps(body), encoding="utf-8")
    text = (TensorSpec(name="text", datatype="BYTES", shape=(-1,)),)
    write_variant(models, "read", "fp32", inputs=text)
    # A folder that promises a file which it has not.
    write_variant(models, "read", "torn", inputs=text, files={"more": b"x"})
    (models / "read" / "torn" / "more").unlink()


def ready(page: Page) -> None:
    """Wait until the first decision is there."""
    expect(page.locator("#decision b").first).to_be_visible()


def chosen(page: Page) -> Locator:
    """Who would answer."""
    return page.locator("#decision .verdict b")


def draw(page: Page, points: tuple[tuple[float, float], ...] = SEVEN) -> None:
    """Draw with the mouse; points are shares of the canvas\'s sides."""
    canvas = page.locator("canvas.draw")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def send(page: Page) -> None:
    """Press *Send*."""
    page.get_by_role("button", name="Send", exact=True).click()


def copied(page: Page, language: str) -> str:
    """What *Copy* puts on the clipboard."""
    page.get_by_role("radio", name=language, exact=True).check()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    text = page.evaluate("navigator.clipboard.readText()")
    assert isinstance(text, str)
    return text


def ran(command: list[str], **environment: str) -> str:
    """What a command writes; it must succeed."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
