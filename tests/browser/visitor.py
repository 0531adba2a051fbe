"""A person at the dashboard: one window of Chromium, and what must never happen in it.

An error on the console, an exception in a script or a request to another origin fails the test at its end.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

AXE_RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")
SERIOUS: Final = frozenset({"serious", "critical"})
PHONE: Final = (390, 844)
DESK: Final = (1280, 860)


class Visitor:
    """Opens pages below ``url``; :meth:`expect_errors` says which errors of the console a test provokes."""

    def __init__(
        self, browser: Browser, url: str, *, size: tuple[int, int] = DESK, scheme: Any = "light", script: bool = True
    ) -> None:
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, java_script_enabled=script
        )
        self._context.set_default_timeout(10_000)
        self.url = url
        self._origin = _origin_of(url)
        self._faults: list[str] = []
        self._expected: list[str] = []
        self.page: Page = self._context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self._faults.append(f"exception: {error}"))
        self.page.on("request", self._watch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.close()
        if kind is None:
            assert not self.faults, self.faults

    @property
    def faults(self) -> list[str]:
        """What happened that must not, and was not expected."""
        return [each for each in self._faults if not any(re.search(known, each) for known in self._expected)]

    def expect_errors(self, *patterns: str) -> None:
        """Expect these faults, which the test provokes itself."""
        self._expected += patterns

    def open(self, path: str) -> int:
        """Open a page, and return the status of its reply."""
        reply = self.page.goto(self.url + path, wait_until="load")
        assert reply is not None
        return reply.status

    def log_in(self, key: str) -> None:
        """Log in with a key, from any page that asks for one."""
        self.page.get_by_label("Key").fill(key)
        self.page.get_by_role("button", name="Log in").click()

    def press(self, name: str) -> None:
        """Press the button or follow the link of this very name, and wait for the page that comes."""
        with self.page.expect_navigation():
            self.button(name).click()

    def button(self, name: str) -> Locator:
        """Return the button or link of this very name."""
        by_button = self.page.get_by_role("button", name=name, exact=True)
        return by_button.or_(self.page.get_by_role("link", name=name, exact=True)).first

    def row(self, execution_id: str) -> Locator:
        """Return the row of a run."""
        return self.page.locator(f'tr[data-execution-id="{execution_id}"]').first

    def cookies(self) -> list[Any]:
        """Return the cookies that this window has."""
        return list(self._context.cookies())

    def serious_faults(self, axe: str) -> list[str]:
        """Return what axe-core finds serious on this page; ``axe`` is its script."""
        self.page.evaluate(f"{axe}\n;0")
        found = self.page.evaluate("rules => axe.run(document, {runOnly: rules})", list(AXE_RULES))
        return [
            f"{fault['id']} ({fault['impact']}): {fault['help']}: {node['html'][:160]}"
            for fault in found["violations"]
            if fault["impact"] in SERIOUS
            for node in fault["nodes"]
        ]

    def overhang(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._faults.append(f"console {message.type}: {message.text}")

    def _watch(self, request: Request) -> None:
        if not request.url.startswith(("data:", "about:")) and _origin_of(request.url) != self._origin:
            self._faults.append(f"request to another origin: {request.url}")


def _origin_of(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
