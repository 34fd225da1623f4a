"""The console in a real Chromium: seen, operated by mouse and keyboard, and its commands run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from router.card import TensorSpec
from tests import needs
from tests.e2e.browser import PATIENCE_MS, Visit, launch
from tests.e2e.harness import PATIENCE_S, Server
from tests.stores import write_variant

DIGITS = tuple("0123456789")
FRONTIER = (("fp32", 0.95, 40.0), ("int8", 0.93, 8.0), ("small", 0.90, 2.0))
SIDE = 12
Keyed = tuple[Server, str, str]
SEVEN = ((0.3, 0.2), (0.7, 0.2), (0.45, 0.8))


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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_models(models)
    return models


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    with Server(store, lanes=2) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Page]:
    """Somebody who looks at the page and is refused nothing."""
    with Visit(browser, f"http://{server.address}/") as page:
        ready(page)
        yield page


def ready(page: Page) -> None:
    expect(page.locator("#decision b").first).to_be_visible()


def chosen(page: Page) -> Locator:
    return page.locator("#decision .verdict b")


def draw(page: Page, points: tuple[tuple[float, float], ...] = SEVEN) -> None:
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
    page.get_by_role("button", name="Send", exact=True).click()


def copied(page: Page, language: str) -> str:
    page.get_by_role("radio", name=language, exact=True).check()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    text = page.evaluate("navigator.clipboard.readText()")
    assert isinstance(text, str)
    return text


def ran(command: list[str], **environment: str) -> str:
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


def test_shows_what_there_is(visit: Page) -> None:
    expect(visit).to_have_title("Gearshift: drawn")
    expect(visit.get_by_role("status").first).to_contain_text("Ready")
    for name, accuracy, _ in FRONTIER:
        row = visit.locator("#variants tr", has=visit.get_by_role("button", name=name, exact=True))
        expect(row).to_contain_text("serves")
        expect(row).to_contain_text(f"{100 * accuracy:.2f} %")
        expect(visit.locator(f'#frontier [data-card="{name}"]')).to_have_count(1)
    expect(visit.locator("#left-out")).to_contain_text("torn")
    visit.get_by_role("radio", name="Cost", exact=True).check()
    expect(visit.locator("#frontier")).to_contain_text("USD per million requests")


def test_policy_lets_no_other_script_or_style_run(browser: Browser, server: Server) -> None:
    visit = Visit(browser, f"http://{server.address}/")
    with visit as page:
        ready(page)
        page.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "window.injected = true";
              document.head.append(script);
            }"""
        )
        assert page.evaluate("window.injected") is None
        visit.allow("Content Security Policy")


def test_a_card_in_full_by_the_keyboard(visit: Page) -> None:
    opener = visit.get_by_role("button", name="int8", exact=True)
    opener.focus()
    visit.keyboard.press("Enter")
    card = visit.get_by_role("dialog", name="drawn / int8")
    expect(card).to_contain_text("93.00 %")
    expect(card).to_contain_text("against the reference")
    visit.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(opener).to_be_focused()


def test_the_decision_follows_the_sliders(visit: Page) -> None:
    expect(chosen(visit)).to_have_text("fp32")
    slider = visit.get_by_role("slider", name="Latency, at most")
    slider.focus()
    assert slider.get_attribute("aria-valuetext") == "none"
    for _ in range(4):
        visit.keyboard.press("PageDown")
    expect(chosen(visit)).to_have_text("int8")
    assert re.fullmatch(r"[\d.]+", slider.get_attribute("aria-valuetext") or "")
    expect(visit.locator("#decision .refused")).to_contain_text("fp32 may take 40")
    expect(visit.locator('#frontier [data-card="fp32"]')).to_have_class(re.compile(r"\bdim\b"))
    expect(visit.locator('#frontier [data-card="int8"]')).to_have_class(re.compile("chosen"))
    expect(visit.locator("#decided")).to_contain_text("int8 would answer")


def test_says_what_would_fit_and_asks_for_it(visit: Page) -> None:
    visit.get_by_role("spinbutton", name="Latency, at most").fill("0.5")
    expect(visit.locator("#decision")).to_contain_text("No variant can, ever")
    visit.locator("#decision [data-use]").first.click()
    expect(chosen(visit)).to_have_text("small")
    visit.get_by_role("button", name="Ask for nothing").click()
    expect(chosen(visit)).to_have_text("fp32")
    expect(visit.get_by_role("spinbutton", name="Latency, at most")).to_have_value("")


def test_every_demand_is_sent_as_it_is_set(visit: Page) -> None:
    visit.get_by_role("spinbutton", name="Accuracy, at least").fill("97")
    visit.get_by_role("spinbutton", name="Cost, at most").fill("5000")
    visit.get_by_role("radiogroup").get_by_role("radio", name="cost", exact=True).check()
    relax = visit.get_by_role("group", name="May give way")
    relax.get_by_role("checkbox", name="cost").check()
    relax.get_by_role("checkbox", name="latency").check()
    visit.get_by_label("Priority").select_option("low")
    visit.locator("#pinned").select_option("int8")
    command = visit.locator("#commands pre")
    for header in (
        "Gearshift-Min-Accuracy: 97%",
        "Gearshift-Max-Cost-Usd-Per-Million: 5000",
        "Gearshift-Optimize: cost",
        "Gearshift-Relax: cost,latency",
        "Gearshift-Priority: low",
        "Gearshift-Variant: int8",
    ):
        expect(command).to_contain_text(header)
    expect(chosen(visit)).to_have_text("int8")
    visit.locator("[name=floor]").select_option("absolute")
    visit.get_by_role("spinbutton", name="Accuracy, at least").fill("92.5")
    expect(command).to_contain_text("Gearshift-Min-Accuracy: 0.925")


def test_a_drawing_is_centred_and_answered(visit: Page) -> None:
    visit.get_by_role("button", name="Clear").click()
    draw(visit)
    body = json.loads(
        visit.locator("#commands pre").inner_text().partition("--data-raw ")[2].strip("'")
    )
    tensor = body["inputs"][0]
    assert tensor["shape"] == [1, 1, SIDE, SIDE]
    rows = [tensor["data"][at : at + SIDE] for at in range(0, SIDE * SIDE, SIDE)]
    inked = [number for number, row in enumerate(rows) if max(row) > 0.3]
    # Of twelve rows ten are filled, as many empty above as below; the bar of the 7 is on top.
    assert (min(inked), max(inked)) == (1, SIDE - 2)
    assert sum(rows[1]) > 2 * sum(rows[SIDE - 2])
    assert all(0 <= value <= 1 for value in tensor["data"])

    send(visit)
    answer = visit.get_by_role("region", name="Answer")
    expect(answer).to_contain_text("fp32 answered 200")
    expect(answer).to_contain_text("is the largest of 10 scores")
    expect(answer).to_contain_text("infer")
    expect(answer).to_contain_text("most-accurate")


def test_copied_commands_work(visit: Page) -> None:
    visit.locator("#pinned").select_option("int8")
    draw(visit)
    command = copied(visit, "curl")
    needs.program("curl", "curl")
    said = ran(["bash", "-c", command])
    assert said.startswith("HTTP/1.1 200") and "gearshift-variant: int8" in said
    program = copied(visit, "Python")
    assert ran([sys.executable, "-c", program]).startswith("int8 pinned")


def test_a_text_and_json(visit: Page) -> None:
    visit.get_by_role("navigation", name="Models").get_by_role("link", name="read").click()
    ready(visit)
    expect(visit).to_have_title("Gearshift: read")
    box = visit.get_by_role("textbox", name="Text")
    box.fill("it's “quoted”, and\n£ — 漢字 $HOME `id`")
    said = ran(["bash", "-c", copied(visit, "curl")])
    assert said.startswith("HTTP/1.1 200")
    assert ran([sys.executable, "-c", copied(visit, "Python")]).startswith("fp32 ")
    send(visit)
    expect(visit.get_by_role("region", name="Answer")).to_contain_text("fp32 answered 200")
    visit.get_by_role("radio", name="JSON").check()
    visit.get_by_label("The body of the request").fill("{")
    expect(visit.locator("#input")).to_contain_text("Not JSON")


def test_refusals_are_told(browser: Browser, server: Server) -> None:
    with Visit(browser, f"http://{server.address}/", refusals=(400, 422, 504)) as page:
        ready(page)
        answer = page.get_by_role("region", name="Answer")
        page.get_by_role("spinbutton", name="Latency, at most").fill("0.5")
        send(page)
        expect(answer).to_contain_text("422")
        expect(answer.locator("[data-use]").first).to_be_visible()
        page.get_by_role("button", name="Ask for nothing").click()
        page.get_by_role("radio", name="JSON").check()
        page.get_by_label("The body of the request").fill('{"inputs": []}')
        send(page)
        expect(answer).to_contain_text("400")
        expect(page.locator("#decisions")).to_contain_text("unsatisfiable")


def test_decisions_with_reasons_and_filters(browser: Browser, server: Server) -> None:
    with Visit(browser, f"http://{server.address}/", refusals=(422,)) as page:
        ready(page)
        page.locator("#pinned").select_option("small")
        send(page)
        expect(page.get_by_role("region", name="Answer")).to_contain_text("small answered")
        page.locator("#pinned").select_option("")
        page.get_by_role("spinbutton", name="Latency, at most").fill("0.5")
        send(page)
        refused = page.locator("#decisions li", has_text="unsatisfiable").first
        refused.locator("summary").click()
        expect(refused).to_contain_text("latency ≤ 0.50 ms")
        expect(refused.locator(".refused")).to_contain_text("small may take")
        page.get_by_label("Outcome").select_option("ok")
        expect(page.locator("#decisions li", has_text="unsatisfiable")).to_have_count(0)
        page.get_by_label("Variant").last.select_option("small")
        expect(page.locator("#decisions li").first).to_contain_text("small")


def test_traffic_as_charts_and_as_a_table(visit: Page) -> None:
    send(visit)
    expect(visit.locator("#traffic canvas")).to_have_count(5)
    expect(visit.locator("#traffic .legend")).to_contain_text("fp32")
    visit.get_by_text("As a table").click()
    table = visit.locator("#traffic-table table")
    expect(table.locator("thead")).to_contain_text("fp32")
    expect(table.locator("tbody tr").first).to_be_visible()


def test_operate_confirms_and_tells_errors(browser: Browser, server: Server) -> None:
    with Visit(browser, f"http://{server.address}/", refusals=(400,)) as page:
        ready(page)
        page.get_by_role("button", name="Disable small").click()
        dialog = page.get_by_role("dialog", name="Disable small of drawn?")
        dialog.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Disable small").click()
        dialog.get_by_role("button", name="Disable").click()
        row = page.locator("#operate li", has=page.get_by_text("small", exact=True))
        expect(row).to_contain_text("disabled")
        expect(page.locator("#operated")).to_contain_text("Disable small: done")
        page.get_by_role("button", name="Pin small").click()
        page.get_by_role("dialog").get_by_role("button", name="Pin").click()
        expect(page.locator("#operated")).to_contain_text("Pin small: 400")
        page.get_by_role("button", name="Enable small").click()
        page.get_by_role("dialog").get_by_role("button", name="Enable").click()
        expect(row).to_contain_text("serves")
        row.locator("input").fill("10")
        page.get_by_role("button", name="Canary small").click()
        page.get_by_role("dialog").get_by_role("button", name="Canary").click()
        expect(row).to_contain_text("canary 10.0 %")
        page.get_by_role("button", name="Enable small").click()
        page.get_by_role("dialog").get_by_role("button", name="Enable").click()
        expect(row).not_to_contain_text("canary 10.0 %")


def test_a_gateway_that_is_gone_and_back(browser: Browser, server: Server) -> None:
    visit = Visit(browser, f"http://{server.address}/")
    with visit as page:
        ready(page)
        page.context.set_offline(True)
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        page.context.set_offline(False)
        expect(page.get_by_role("alert")).to_have_text("")
        expect(page.get_by_role("status").first).to_contain_text("Ready")
        visit.allow("ERR_INTERNET_DISCONNECTED")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_and_accessible(browser: Browser, server: Server, scheme: str) -> None:
    size = {"width": 320, "height": 640}
    with Visit(browser, f"http://{server.address}/", viewport=size, color_scheme=scheme) as page:
        ready(page)
        send(page)
        expect(page.get_by_role("region", name="Answer")).to_contain_text("answered 200")
        expect(page.locator("#traffic canvas").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.fixture(scope="module")
def keyed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server that wants keys; one that may read and infer, one that may administrate."""
    ledger = tmp_path_factory.mktemp("keyed") / "ledger.db"
    with Server(store, database=f"sqlite:///{ledger}") as server:
        keys = []
        for name, scopes in (
            ("operator", ["admin", "infer", "read"]),
            ("reader", ["infer", "read"]),
        ):
            headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
            answer = httpx.post(
                f"{server.admin_url}/admin/keys",
                json={"name": name, "scopes": scopes},
                headers=headers,
            )
            assert answer.status_code == 201, answer.text
            keys.append(answer.json()["key"])
        yield server, keys[1], keys[0]


def give(page: Page, key: str) -> None:
    page.get_by_role("button", name=re.compile("^Key")).click()
    page.get_by_role("textbox", name="Key").fill(key)
    page.keyboard.press("Enter")


def test_keys_are_asked_for_and_kept_in_memory_alone(browser: Browser, keyed: Keyed) -> None:
    server, reader, admin = keyed
    with Visit(browser, f"http://{server.address}/", refusals=(401,)) as page:
        expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
        give(page, "wrong")
        expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
        give(page, reader)
        ready(page)
        expect(page.locator("#operate-panel")).to_be_hidden()
        command = copied(page, "curl")
        assert reader not in command
        said = ran(["bash", "-c", command], GEARSHIFT_KEY=reader)
        assert said.startswith("HTTP/1.1 200")
        program = copied(page, "Python")
        assert ran([sys.executable, "-c", program], GEARSHIFT_KEY=reader).startswith("fp32 ")
        give(page, admin)
        expect(page.locator("#operate-panel")).to_be_visible()
        stored = page.evaluate(
            "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
        )
        assert reader not in stored and admin not in stored
        assert admin not in page.content()
        page.reload()
        expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
