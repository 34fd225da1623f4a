"""What the console sends, in a real Chromium: drawings, pictures, stored samples, JSON."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from compressors.tasks import digits
from gateway.processors import image
from router.card import TensorSpec
from router.processor import ImageProcessor
from tests.e2e.browser import PATIENCE_MS, Visit, launch
from tests.e2e.console_visits import DIGITS, STROKES, copied, draw, ran, ready, send
from tests.e2e.harness import Server
from tests.processed import picture
from tests.stores import write_variant

SIDE = 24
PIXELS = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, SIDE, SIDE))
SCORES = TensorSpec(name="scores", datatype="FP32", shape=(-1, 10))
GREY = ImageProcessor(input="picture", pixels="image", mode="L")
COLOURS = ImageProcessor(input="photo", pixels="image", max_bytes=20_000)
LARGE = (3, 224, 224)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    ports: dict[str, Any] = {"outputs": (SCORES,), "labels": DIGITS, "mirror": True}
    write_variant(models, "digits", "fp32", inputs=(PIXELS,), processor=GREY, **ports)
    values = np.linspace(0, 1, SIDE * SIDE).reshape(1, 1, SIDE, SIDE).round(3).tolist()
    sample(models, "digits", {"name": "image", "datatype": "FP32", "data": values})
    colours = TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 32, 32))
    write_variant(models, "photos", "fp32", inputs=(colours,), processor=COLOURS, **ports)
    large = TensorSpec(name="image", datatype="FP32", shape=(-1, *LARGE))
    write_variant(models, "large", "fp32", inputs=(large,), **ports)
    write_variant(models, "unsampled", "fp32", inputs=(PIXELS,), **ports)
    sample(models, "unsampled", {"name": "image"})
    write_variant(models, "strange", "fp32", inputs=(PIXELS,), **ports)
    sample(models, "strange", {"name": "image", "datatype": "FP32", "data": [1, None, {}]})
    with Server(models) as server:
        yield server
        assert "Traceback" not in server.log()


def sample(models: Path, model: str, *inputs: dict[str, Any]) -> None:
    body = {"inputs": [{"shape": [1, 1, SIDE, SIDE], **each} for each in inputs]}
    (models / model / "sample.json").write_text(json.dumps(body), encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        yield browser
        browser.close()


def visit(browser: Browser, server: Server, model: str, **how: Any) -> Visit:
    """Somebody who looks at that model."""
    return Visit(browser, f"http://{server.address}/", fragment=model, **how)


def answer(page: Page) -> Locator:
    return page.get_by_role("region", name="Answer")


def offered(page: Page) -> list[str]:
    return page.locator("#kinds label").all_inner_texts()


def sent_file(page: Page) -> bytes:
    """The file that the command holds."""
    command = page.locator("#commands pre").inner_text()
    return base64.b64decode(command.partition("<<'END'\n")[2].partition("\nEND")[0])


def test_drawn_digits_are_answered_and_read_right(browser: Browser, server: Server) -> None:
    files = []
    with visit(browser, server, "digits") as page:
        ready(page)
        assert offered(page) == ["Draw", "Picture", "JSON"]
        for stroke in STROKES:
            page.get_by_role("button", name="Clear").click()
            draw(page, stroke)
            files.append(sent_file(page))
        send(page)
        expect(answer(page)).to_contain_text("fp32 answered 200")
        assert copied(page, "curl").count("\n") > 3
        said = ran(["bash", "-c", copied(page, "curl")])
        assert said.startswith("HTTP/1.1 200"), said
        assert ran([sys.executable, "-c", copied(page, "Python")]).startswith("fp32 ")
    # What the network of the demo reads in what came through the processor.
    process = image.open(GREY, Path(), {"image": PIXELS})
    pixels = process(np.array(files, object), lambda: None)["image"]
    assert pixels.max() > 0.9 and pixels.min() == 0
    with torch.inference_mode():
        scores = digits.TASK.network()(torch.from_numpy(pixels))
    assert scores.argmax(1).tolist() == list(range(10))


def test_a_stored_sample_and_json_stay_the_tensor_itself(browser: Browser, server: Server) -> None:
    with visit(browser, server, "digits") as page:
        ready(page)
        command = page.locator("#commands pre")
        stored = command.inner_text()
        assert '"name":"image"' in stored
        page.get_by_role("button", name="Clear").click()
        assert len(sent_file(page)) > 0 and command.inner_text() != stored
        page.get_by_role("button", name="Stored sample").click()
        expect(command).to_have_text(stored)
        # Shown as it is: black above, white below.
        shown = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 24, 24).data]"
        levels = page.locator("canvas.sent").evaluate(shown)
        assert (levels[0], levels[-4]) == (0, 255)
        send(page)
        expect(answer(page)).to_contain_text("fp32 answered 200")
        draw(page)
        page.get_by_role("radio", name="JSON").check()
        assert '"name":"image"' in page.get_by_label("The body of the request").input_value()
        page.get_by_label("The body of the request").fill("{}")
        page.get_by_role("button", name="Stored sample").click()
        expect(command).to_have_text(stored)
        with page.expect_response("**/infer") as answered:
            send(page)
        assert answered.value.status == 200


def test_a_picture_is_chosen(browser: Browser, server: Server) -> None:
    red = picture(np.full((40, 60, 3), (255, 0, 0), np.uint8))
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    with visit(browser, server, "photos") as page:
        ready(page)
        assert offered(page) == ["Picture", "JSON"]
        send(page)
        expect(answer(page)).to_contain_text("Nothing was sent")
        expect(answer(page)).to_contain_text("No picture has been chosen")
        expect(page.locator("#commands")).to_contain_text("No picture has been chosen")
        chooser = page.get_by_label("A picture, PNG or JPEG")

        def choose(name: str, content: bytes) -> None:
            chooser.set_input_files({"name": name, "mimeType": "image/png", "buffer": content})

        choose("red.png", red)
        expect(page.locator("canvas.chosen-file")).to_be_visible()
        assert sent_file(page) == red
        # Each row of the answer is its first value: red, which is 1.
        with page.expect_response("**/infer") as answered:
            send(page)
        assert answered.value.json()["outputs"][0]["data"] == [1.0] * 10
        assert ran(["bash", "-c", copied(page, "curl")]).startswith("HTTP/1.1 200")
        choose("noise.png", picture(noise))
        expect(page.locator("#input .bad")).to_contain_text("reads at most 20,000")
        choose("torn.png", red[:60])
        expect(page.locator("#input .bad")).to_contain_text("torn.png is no picture")
        send(page)
        expect(answer(page)).to_contain_text("torn.png is no picture")


@pytest.mark.parametrize("model", ["unsampled", "strange"])
def test_a_sample_that_is_none_is_left_out(browser: Browser, server: Server, model: str) -> None:
    with visit(browser, server, model) as page:
        ready(page)
        expect(page.get_by_role("button", name="Stored sample")).to_have_count(0)
        draw(page)
        send(page)
        expect(answer(page)).to_contain_text("fp32 answered 200")


def test_a_large_input_is_copied_whole_and_shown_in_part(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    with visit(browser, server, "large") as page:
        ready(page)
        shown = page.locator("#commands pre").inner_text()
        assert len(shown) < 20_000 and "letters are left out here" in shown
        command = copied(page, "curl")
        assert len(command) > 2 * np.prod(LARGE)
        (tmp_path / "command.sh").write_text(command, encoding="utf-8")
        assert ran(["bash", str(tmp_path / "command.sh")]).startswith("HTTP/1.1 200")
        (tmp_path / "program.py").write_text(copied(page, "Python"), encoding="utf-8")
        assert ran([sys.executable, str(tmp_path / "program.py")]).startswith("fp32 ")


def test_what_is_no_request_is_not_sent_and_not_copied(browser: Browser, server: Server) -> None:
    with visit(browser, server, "digits") as page:
        ready(page)
        page.get_by_role("radio", name="JSON").check()
        box = page.get_by_label("The body of the request")
        for text, why in (("null", "A request is an object"), ("{", "Not JSON")):
            box.fill(text)
            expect(page.locator("#input .bad")).to_contain_text(why)
            expect(page.locator("#commands")).to_contain_text(why)
            expect(page.locator("#commands pre")).to_have_count(0)
            send(page)
            expect(answer(page)).to_contain_text("Nothing was sent")
            expect(page.locator("#answered")).to_contain_text(why)


def test_draws_for_a_model_whose_card_is_not_there(browser: Browser, server: Server) -> None:
    def cardless(route: Route) -> None:
        response = route.fetch()
        state = response.json()
        for model in state["models"]:
            for variant in model["variants"]:
                variant["card"] = None
        route.fulfill(response=response, json=state)

    without = visit(browser, server, "digits", before=lambda page: page.route("**/state", cardless))
    with without as page:
        ready(page)
        page.get_by_role("button", name="Clear").click()
        draw(page)
        send(page)
        expect(answer(page)).to_contain_text("fp32 answered 200")
