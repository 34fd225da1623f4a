"""The console with keys: what each may see and change, in a real Chromium."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.browser import PATIENCE_MS, Visit, launch
from tests.e2e.console_visits import copied, ran, ready, send, write_models
from tests.e2e.harness import Server


class Keyed:
    """A server that wants keys, with one that may do everything."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = f"http://{server.address}/"
        self._headers: dict[str, str] = {}
        self.admin = self.key("operator", scopes=["admin", "infer", "read"])
        self._headers = {"Authorization": f"Bearer {self.admin}"}

    def key(self, name: str, **wanted: Any) -> str:
        """A new key."""
        answer = httpx.post(
            f"{self.server.admin_url}/admin/keys",
            json={"name": name, **wanted},
            headers=self._headers,
        )
        assert answer.status_code == 201, answer.text
        key = answer.json()["key"]
        assert isinstance(key, str)
        return key


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    write_models(folder / "models")
    with Server(folder / "models", database=f"sqlite:///{folder / 'ledger.db'}") as server:
        yield Keyed(server)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        yield browser
        browser.close()


def give(page: Page, key: str) -> None:
    page.get_by_role("button", name=re.compile("^Key")).click()
    page.get_by_role("textbox", name="Key").fill(key)
    page.keyboard.press("Enter")


def test_keys_are_asked_for_and_kept_in_memory_alone(browser: Browser, keyed: Keyed) -> None:
    reader, admin = keyed.key("reader", scopes=["infer", "read"]), keyed.admin
    with Visit(browser, keyed.url, refusals=(401,)) as page:
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


def test_operate_confirms_and_tells_errors(browser: Browser, keyed: Keyed) -> None:
    with Visit(browser, keyed.url, refusals=(400, 401)) as page:
        give(page, keyed.admin)
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


def test_a_key_that_may_only_read(browser: Browser, keyed: Keyed) -> None:
    with Visit(browser, keyed.url, refusals=(401, 403)) as page:
        give(page, keyed.key("onlooker", scopes=["read"]))
        expect(page.locator("#variants")).to_contain_text("small")
        expect(page.locator("#decision")).to_contain_text("403")
        send(page)
        expect(page.get_by_role("region", name="Answer")).to_contain_text("this needs infer")
        expect(page.locator("#operate-panel")).to_be_hidden()


def test_a_budget_that_is_spent(browser: Browser, keyed: Keyed) -> None:
    with Visit(browser, keyed.url, refusals=(401, 429)) as page:
        spender = keyed.key("spender", scopes=["infer", "read"], budget_usd_per_day=1e-9)
        give(page, spender)
        ready(page)
        answer = page.get_by_role("region", name="Answer")
        send(page)
        expect(answer).to_contain_text("answered 200")
        send(page)
        expect(answer).to_contain_text("429")
        expect(answer).to_contain_text("It says to come back in")
        expect(page.get_by_role("status").first).to_contain_text("Answers 429")
        expect(page.get_by_role("alert")).to_contain_text("key spender")
