"""What the console draws of what it is told, in a real Chromium: places, colours, lengths, words.

Where a figure has to be a certain one, the gateway's own answer is altered on its way to the page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.e2e.browser import PATIENCE_MS, Visit, launch
from tests.e2e.console_visits import chosen, ready, write_models
from tests.e2e.harness import Server
from tests.stores import write_variant

Alter = Callable[[dict[str, Any]], None]

MANY = 24
AGES_MS = 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_models(models)
    for name, accuracy, ms in (("fp32", 0.95, 40.0), ("small", 0.90, 2.0)):
        write_variant(models, "tailed", name, accuracy=accuracy, latency_ms_at_1=ms, tail_ms=ms / 2)
    for number in range(MANY):
        name = f"v{number}" if number else "fp32"
        write_variant(models, "many", name, accuracy=0.95 - 0.01 * number)
    with Server(models, lanes=2) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        yield browser
        browser.close()


def visit(browser: Browser, server: Server, model: str = "", **how: Any) -> Visit:
    """Somebody who looks at that model, or at the first."""
    return Visit(browser, f"http://{server.address}/", fragment=model, **how)


def told(what: str, alter: Alter) -> Callable[[Page], None]:
    """Answers of `/console/{what}` as altered; for `Visit(before=...)`."""

    def altered(route: Route) -> None:
        response = route.fetch()
        body = response.json()
        alter(body)
        route.fulfill(response=response, json=body)

    return lambda page: page.route(re.compile(rf"/console/{what}(\?|$)"), altered)


def model_of(state: dict[str, Any], name: str) -> dict[str, Any]:
    return next(model for model in state["models"] if model["name"] == name)


def mark(page: Page, variant: str) -> Locator:
    """A variant's cross in the frontier."""
    return page.locator(f'#frontier [data-card="{variant}"]')


def number(element: Locator, name: str) -> float:
    return float(element.get_attribute(name) or "nan")


def style(element: Locator, name: str) -> str:
    value = element.evaluate("(one, name) => getComputedStyle(one)[name]", name)
    assert isinstance(value, str)
    return value


def x_of(page: Page, ms: float) -> float:
    """Where a latency is on the axis of `tailed`: two medians are known, between them it is
    logarithmic."""
    slow, fast = (
        number(mark(page, name).locator("circle").first, "cx") for name in ("fp32", "small")
    )
    return fast + (slow - fast) * math.log(ms / 2) / math.log(40 / 2)


def test_the_link_past_the_header_leaves_the_model(browser: Browser, server: Server) -> None:
    with visit(browser, server, "read") as page:
        ready(page)
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        assert page.url.endswith("/#read")
        expect(page).to_have_title("Gearshift: read")


@pytest.mark.parametrize("address", ["%E0%A4%A", "nothing-such", "%"])
def test_an_address_of_no_model_shows_the_first(
    browser: Browser, server: Server, address: str
) -> None:
    with visit(browser, server, address) as page:
        ready(page)
        expect(page).to_have_title("Gearshift: drawn")


def test_lanes_that_cost_nothing(browser: Browser, tmp_path: Path) -> None:
    write_variant(tmp_path, "free", "fp32")
    with (
        Server(tmp_path, usd_per_lane_hour=0) as own,
        Visit(browser, f"http://{own.address}/") as page,
    ):
        ready(page)
        slider = page.get_by_role("slider", name="Cost, at most")
        expect(slider).to_be_disabled()
        assert slider.get_attribute("aria-valuetext") == "free"
        page.get_by_role("radio", name="Cost", exact=True).check()
        expect(page.locator("#frontier")).to_contain_text("costs nothing")
        page.get_by_role("spinbutton", name="Latency, at most").fill("500")
        page.get_by_role("button", name="Ask for nothing").click()
        page.get_by_role("radio", name="Latency", exact=True).check()
        expect(mark(page, "fp32")).to_have_count(1)
        assert "NaN" not in page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_many_variants_have_a_colour_each(browser: Browser, server: Server, scheme: str) -> None:
    with visit(browser, server, "many", color_scheme=scheme) as page:
        ready(page)
        marks = [style(mark(page, f"v{n}").locator("circle").first, "fill") for n in range(1, MANY)]
        assert len(set(marks)) == MANY - 1
        swatch = "#variants tbody .swatch"
        expect(page.locator(swatch)).to_have_count(MANY)
        assert len({style(one, "backgroundColor") for one in page.locator(swatch).all()}) == MANY


def test_a_cross_is_as_long_as_its_intervals(browser: Browser, server: Server) -> None:
    with visit(browser, server, "tailed") as page:
        ready(page)
        dots = [mark(page, name).locator("circle").first for name in ("fp32", "small")]
        a_point = (number(dots[1], "cy") - number(dots[0], "cy")) / 5
        upright, level = mark(page, "fp32").locator(".whisker").all()
        # One point to either side.
        assert number(upright, "y1") == pytest.approx(number(dots[0], "cy") + a_point)
        assert number(upright, "y2") == pytest.approx(number(dots[0], "cy") - a_point)
        assert number(level, "x1") == number(dots[0], "cx")
        assert number(level, "x2") == pytest.approx(x_of(page, 60))


def test_what_is_asked_is_greyed_and_who_answers_is_ringed(
    browser: Browser, server: Server
) -> None:
    with visit(browser, server, "tailed") as page:
        ready(page)
        expect(chosen(page)).to_have_text("fp32")
        ring = page.locator("#frontier .ring")
        expect(ring).to_have_count(1)
        assert number(ring, "cx") == number(mark(page, "fp32").locator("circle").first, "cx")
        expect(page.locator("#frontier .shut")).to_have_count(0)
        page.get_by_role("spinbutton", name="Latency, at most").fill("10")
        expect(chosen(page)).to_have_text("small")
        assert number(ring, "cx") == number(mark(page, "small").locator("circle").first, "cx")
        shut = page.locator("#frontier .shut")
        assert number(shut, "x") == pytest.approx(x_of(page, 10))
        assert number(shut, "x") + number(shut, "width") > x_of(page, 60)
        assert style(shut, "fill") not in ("none", "rgba(0, 0, 0, 0)")
        expect(mark(page, "fp32").locator("circle").first).to_have_css("opacity", "0.28")
        expect(mark(page, "small").locator("circle").first).to_have_css("opacity", "1")


def test_live_medians_and_breakers(browser: Browser, server: Server) -> None:
    def alter(state: dict[str, Any]) -> None:
        fp32, small = model_of(state, "tailed")["variants"]
        fp32["live"] = {"answers": 7, "p50_ms": 20.0, "p99_ms": 30.0}
        small["breaker"] = "open"

    with visit(browser, server, "tailed", before=told("state", alter)) as page:
        ready(page)
        lived = mark(page, "fp32").locator(".lived")
        assert number(lived, "x1") == number(lived, "x2") == pytest.approx(x_of(page, 20))
        way = mark(page, "fp32").locator(".way")
        assert number(way, "x1") == number(mark(page, "fp32").locator("circle").first, "cx")
        assert number(way, "x2") == number(lived, "x1")
        expect(mark(page, "small").locator(".lived")).to_have_count(0)
        first, second = page.locator("#variants tbody tr").all()
        expect(first).to_contain_text("20.0 ms / 30.0 ms")
        expect(first).to_contain_text("7 answers")
        expect(first).not_to_contain_text("breaker")
        expect(second).to_contain_text("breaker open")


def test_lanes_say_what_they_do(browser: Browser, server: Server) -> None:
    def alter(state: dict[str, Any]) -> None:
        one, other = state["lanes"]
        one |= {"busy": True, "model": "drawn", "variant": "int8", "rows": 3}
        other |= {"lost": True}
        state["lanes"].append({**one, "lane": 2, "busy": False})
        state["queue"] = {"requests": 4, "oldest_ms": 12.0, "by_model": {"drawn": 3, "read": 1}}

    with visit(browser, server, before=told("state", alter)) as page:
        ready(page)
        expect(page.locator("#lanes li")).to_have_count(3)
        busy, lost, idle = page.locator("#lanes li").all()
        expect(busy).to_contain_text("busydrawn / int8, 3 rows")
        expect(lost).to_contain_text("lost")
        expect(idle).to_contain_text("idle")
        assert [one.get_attribute("class") for one in (busy, lost, idle)] == [
            "busy",
            "lost",
            "idle",
        ]
        assert (
            style(busy, "borderColor") != style(idle, "borderColor") != style(lost, "borderColor")
        )
        expect(page.locator("#queue")).to_have_text("4 requests wait, the oldest for 12.0 ms")
        expect(page.locator("#lanes")).to_contain_text("drawn: 3 · read: 1")
        expect(page.locator("#vitals")).to_contain_text("1 of 3 lanes busy · 4 queued")


def test_attainment_is_what_was_kept_of_what_was_asked(browser: Browser, server: Server) -> None:
    def alter(history: dict[str, Any]) -> None:
        steps = len(history["queued"])
        history["models"]["drawn"] = {
            "variants": {"fp32": [4] * steps},
            "failed": {"overloaded": [1] * steps},
            "kept": [12] * steps,
            "missed": [3] * steps,
            "shed": [1] * steps,
            "p99_ms": [21.0] * steps,
        }

    with visit(browser, server, before=told("history", alter)) as page:
        ready(page)
        said = '#traffic output[data-value="{}"]'
        expect(page.locator(said.format("attainment"))).to_have_text("75 %")
        expect(page.locator(said.format("p99"))).to_have_text("21.0 ms")
        expect(page.locator(said.format("fp32"))).to_have_text("0.8")
        expect(page.locator(said.format("refused or failed"))).to_have_text("0.2")
        page.get_by_text("As a table").click()
        row = page.locator("#traffic-table tbody tr").first
        expect(row).to_contain_text("75 %")
        with page.expect_request("**/console/history?minutes=15"):
            page.get_by_role("radio", name="15 min").check()


def asked_for_state(page: Page) -> list[str]:
    """The addresses of the page's looks from here on."""
    looks: list[str] = []
    page.on(
        "request",
        lambda request: looks.append(request.url) if "/console/state" in request.url else None,
    )
    return looks


def test_pause_and_a_hidden_tab_ask_nothing(browser: Browser, server: Server) -> None:
    with visit(browser, server, before=lambda page: page.clock.install()) as page:
        ready(page)
        pause = page.get_by_role("button", name="Pause")
        looks = asked_for_state(page)

        def age() -> None:
            """A minute passes for the page; its requests are given the time to be told of."""
            page.clock.fast_forward(AGES_MS)
            page.evaluate("fetch('/readyz').then((answer) => answer.text())")

        with page.expect_request("**/console/state"):
            age()
        pause.click()
        expect(pause).to_have_attribute("aria-pressed", "true")
        page.evaluate("fetch('/readyz').then((answer) => answer.text())")
        looks.clear()
        age()
        age()
        assert looks == []
        with page.expect_response("**/console/state"):
            pause.click()
        hidden = "to => Object.defineProperty(document, 'hidden', {value: to, configurable: true})"
        page.evaluate(hidden, True)
        # The look that waits already is the last; whatever it asks for comes first.
        age()
        age()
        looks.clear()
        age()
        age()
        assert looks == []
        with page.expect_request("**/console/state"):
            page.evaluate(hidden, False)
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_light_and_dark(browser: Browser, server: Server) -> None:
    def lightness(page: Page, name: str) -> float:
        colour = style(page.locator("body"), name)
        return sum(map(float, colour[colour.index("(") + 1 : -1].split(",")[:3])) / 3

    for scheme, paper_is_lighter in (("light", True), ("dark", False)):
        with visit(browser, server, color_scheme=scheme) as page:
            ready(page)
            paper, ink = lightness(page, "backgroundColor"), lightness(page, "color")
            assert abs(paper - ink) > 150
            assert (paper > ink) == paper_is_lighter


def test_a_page_that_is_old_is_dimmed(browser: Browser, server: Server) -> None:
    looking = visit(browser, server)
    with looking as page:
        ready(page)
        expect(page.locator("main")).to_have_css("opacity", "1")
        page.context.set_offline(True)
        expect(page.locator("main")).to_have_css("opacity", "0.55")
        page.context.set_offline(False)
        expect(page.locator("main")).to_have_css("opacity", "1")
        looking.allow("ERR_INTERNET_DISCONNECTED")


def test_pin_and_unpin(browser: Browser, server: Server) -> None:
    with visit(browser, server, "tailed") as page:
        ready(page)
        row = page.locator("#operate li", has=page.get_by_text("small", exact=True))
        for action, variant in (("Pin", "small"), ("Unpin", "fp32")):
            page.get_by_role("button", name=f"{action} small").click()
            page.get_by_role("dialog").get_by_role("button", name=action).click()
            expect(page.locator("#operated")).to_contain_text(f"{action} small: done")
            (expect(row).to_contain_text if action == "Pin" else expect(row).not_to_contain_text)(
                "pinned"
            )
            answer = server.client.post("/v2/models/tailed/decide", json={})
            assert answer.json()["variant"] == variant
