"""Draw the pictures of the console for the documentation, of a real gateway under real requests.

    python -m tests.e2e.console_pictures MODELS docs/pictures

MODELS is a store that holds `digits`, as `make demo` builds it. Takes about a minute.
"""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.browser import PATIENCE_MS, Visit, launch
from tests.e2e.console_visits import draw, ready, send
from tests.e2e.harness import Server, until

_ASKED: tuple[dict[str, str], ...] = (
    {},
    {"Gearshift-Optimize": "cost"},
    {"Gearshift-Max-Latency-Ms": "60", "Gearshift-Min-Accuracy": "97%"},
    {"Gearshift-Max-Latency-Ms": "15"},
    {"Gearshift-Max-Latency-Ms": "4", "Gearshift-Min-Accuracy": "99%"},
    {"Gearshift-Min-Accuracy": "99%", "Gearshift-Optimize": "cost"},
)
_SECONDS = 45.0
_PAUSE_S = 0.06
_MOST_TRIES = 20


def requests(server: Server, body: bytes, stop: threading.Event, number: int) -> None:
    """Ask again and again, each time something else, until told to stop."""
    with httpx.Client(base_url=f"http://{server.address}") as client:
        for headers in itertools.islice(itertools.cycle(_ASKED), number, None):
            if stop.wait(_PAUSE_S * (1 + number)):
                return
            client.post("/v2/models/digits/infer", content=body, headers=headers)


def operate(page: Page) -> None:
    """Set some demands, send a drawing, and wait until the charts are full."""
    ready(page)
    page.get_by_role("radio", name="1 min").check()
    page.get_by_role("spinbutton", name="Accuracy, at least").fill("97")
    page.get_by_role("spinbutton", name="Latency, at most").fill("30")
    page.get_by_role("radiogroup").get_by_role("radio", name="cost", exact=True).check()
    draw(page)
    # On a busy machine some are refused: the picture is of one that is answered.
    for _ in range(_MOST_TRIES):
        send(page)
        expect(page.locator("#answer .read, #answer .bad").first).to_be_visible()
        if page.locator("#answer .read").count():
            break
    expect(page.locator("#traffic canvas")).to_have_count(5)
    expect(page.locator("#decision .verdict")).to_contain_text("would answer")
    page.evaluate("scrollTo(0, 0)")


def main(models: Path, out: Path) -> None:
    """Write `console-*.png`."""
    body = (models / "digits" / "sample.json").read_bytes()
    with Server(models, lanes=2, wait="/healthz") as server, sync_playwright() as playwright:
        until(lambda: not _loading(server), "every variant is settled", 180)
        stop = threading.Event()
        threads = [
            threading.Thread(target=requests, args=(server, body, stop, number))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        stop.wait(_SECONDS)
        browser = launch(playwright.chromium)
        expect.set_options(timeout=PATIENCE_MS)
        for name, scheme, width in (
            ("light", "light", 1280),
            ("dark", "dark", 1280),
            ("narrow", "light", 360),
        ):
            size = {"width": width, "height": 900}
            visit = Visit(
                browser,
                f"http://{server.address}/",
                refusals=(422, 429, 504),
                viewport=size,
                color_scheme=scheme,
            )
            with visit as page:
                operate(page)
                page.screenshot(path=out / f"console-{name}.png")
                if name == "light":
                    page.screenshot(path=out / "console-whole.png", full_page=True)
                    part = page.locator("section", has=page.locator("#answer"))
                    part.screenshot(path=out / "console-answer.png")
        stop.set()
        for thread in threads:
            thread.join()
        browser.close()


def _loading(server: Server) -> bool:
    state = server.client.get("/console/state").json()
    return any(
        variant["state"] == "loading" for model in state["models"] for variant in model["variants"]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
