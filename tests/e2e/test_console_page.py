"""The console in a real Chromium: seen, operated by mouse and keyboard, and its commands run."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import needs
from tests.e2e.browser import PATIENCE_MS, Visit, launch
from tests.e2e.console_visits import (
    FRONTIER,
    SIDE,
    chosen,
    copied,
    draw,
    ran,
    ready,
    send,
    write_models,
)
from tests.e2e.harness import Server
from tests.stores import write_variant


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


def test_shows_what_there_is(visit: Page) -> None:
    expect(visit).to_have_title("Gearshift: drawn")
    expect(visit.get_by_role("status").first).to_contain_text("Ready")
    for name, accuracy, _ in FRONTIER:
        row = visit.locator("#variants tr", has=visit.get_by_role("button", name=name, exact=True))
        expect(row).to_contain_text("serves")
        expect(row).to_contain_text(f"{100 * accuracy:.2f} %")
        expect(visit.locator(f'#frontier [data-card="{name}"]')).to_have_count(1)
    expect(visit.locator("#left-out")).to_be_visible()
    expect(visit.locator("#left-out li")).to_contain_text("torn")
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
    body = json.loads(visit.locator("#commands pre").inner_text().splitlines()[-2])
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
    expect(visit.locator("#answered")).to_contain_text("fp32 answered 200")
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


def test_a_flood_of_answers_hides_no_refusal(browser: Browser, server: Server) -> None:
    (tensor,) = server.client.get("/v2/models/drawn").json()["inputs"]
    shape = [1, *tensor["shape"][1:]]
    row = {**tensor, "shape": shape, "data": [0] * math.prod(shape)}

    def asked(**parameters: float) -> int:
        body = {"inputs": [row], "parameters": parameters}
        return server.client.post("/v2/models/drawn/infer", json=body).status_code

    assert asked(max_latency_ms=0.01) == 422
    assert [asked() for _ in range(120)] == [200] * 120
    with Visit(browser, f"http://{server.address}/") as page:
        ready(page)
        rows = page.locator("#decisions li")
        expect(rows).to_have_count(100)
        page.get_by_label("Outcome").select_option("unsatisfiable")
        expect(rows.filter(has_text="latency ≤ 0.01 ms")).to_have_count(1)


def test_decisions_of_one_variant(visit: Page) -> None:
    rows = visit.locator("#decisions li")
    for variant in ("fp32", "small"):
        visit.locator("#pinned").select_option(variant)
        with visit.expect_response("**/infer"):
            send(visit)
        expect(rows.locator(".dot").first).to_have_text(variant)
    visit.get_by_label("Variant").last.select_option("small")
    expect(rows.locator(".dot", has_text="fp32")).to_have_count(0)
    assert set(rows.locator(".dot").all_inner_texts()) == {"small"}
    visit.get_by_label("Variant").last.select_option("")
    expect(rows.locator(".dot", has_text="fp32").first).to_be_visible()


def test_traffic_as_charts_and_as_a_table(visit: Page) -> None:
    send(visit)
    expect(visit.locator("#traffic canvas")).to_have_count(5)
    expect(visit.locator("#traffic .legend")).to_contain_text("fp32")
    visit.get_by_text("As a table").click()
    table = visit.locator("#traffic-table table")
    expect(table.locator("thead")).to_contain_text("fp32")
    expect(table.locator("tbody tr").first).to_be_visible()


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


def test_a_model_out_of_service_and_back(browser: Browser, tmp_path: Path) -> None:
    write_variant(tmp_path, "only", "fp32")
    with (
        Server(tmp_path) as server,
        Visit(browser, f"http://{server.address}/", refusals=(404, 503)) as page,
    ):
        ready(page)
        path = f"{server.admin_url}/admin/models/only"
        assert httpx.post(path + "/unload").status_code == 200
        expect(page.locator("#frontier-note")).to_contain_text("out of service")
        expect(page.locator("#variants")).not_to_contain_text("serves")
        send(page)
        expect(page.get_by_role("region", name="Answer").locator(".bad")).to_be_visible()
        assert httpx.post(path + "/load").status_code == 200
        expect(page.locator("#variants")).to_contain_text("serves")
        expect(chosen(page)).to_have_text("fp32")
