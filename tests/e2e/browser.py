"""A real Chromium on the console, which complains of nothing that was not expected of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from playwright.sync_api import Browser, BrowserType, ConsoleMessage, Page

from tests import needs

PATIENCE_MS = 20_000
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
_SIZE = {"viewport": {"width": 1280, "height": 900}}
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


def launch(chromium: BrowserType) -> Browser:
    """Debian's Chromium, without a window."""
    path = needs.program("chromium", "chromium")
    return chromium.launch(executable_path=path, args=list(_QUIET))


class Visit:
    """One visitor on a page, as a context manager; leaving it holds that nothing was amiss.

    Args:
        refusals: statuses that the browser may report of requests; it calls each an error.
        fragment: of the address, behind its `#`: a model.
        before: what is done with the page before it is opened.
        context: as of Playwright's `new_context`, such as a size or a colour scheme.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        refusals: tuple[int, ...] = (),
        fragment: str = "",
        before: Callable[[Page], object] = lambda _: None,
        **context: Any,
    ) -> None:
        self._refusals = refusals
        self._fragment, self._before = fragment, before
        self._url = url
        self._context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}} | context
        )
        self._context.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.asked: list[str] = []

    def __enter__(self) -> Page:
        page = self._context.new_page()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"raised: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))
        self._before(page)
        page.goto(f"{self._url}#{self._fragment}" if self._fragment else self._url)
        return page

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.close()
        if error is None:
            assert not self.complaints, self.complaints
            elsewhere = [url for url in self.asked if not url.startswith((self._url, "data:"))]
            assert not elsewhere, elsewhere

    def _said(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        found = _REFUSED.match(message.text)
        if found is None or int(found[1]) not in self._refusals:
            self.complaints.append(f"{message.type}: {message.text} ({message.location})")

    def allow(self, text: str) -> Self:
        """Take back a complaint that holds `text`; there must be one."""
        kept = [one for one in self.complaints if text not in one]
        assert len(kept) < len(self.complaints), self.complaints
        self.complaints = kept
        return self
