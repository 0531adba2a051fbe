"""Fixtures of the tests in a browser: Debian's Chromium, a real stack for each file, and windows that are watched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.api_client import AGENTS
from tests.browser.submitter import Submitter
from tests.browser.visitor import Visitor
from tests.stack import Stack

CHROMIUM: Final = "chromium"
OpenWindow = Callable[..., Visitor]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Yield Debian's Chromium, without a window on any screen."""
    program = shutil.which(CHROMIUM)
    assert program, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        # Its sandbox needs rights that a container does not give; it opens the pages of this stack alone.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """Return the script of axe-core."""
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def runs(stack: Stack) -> Iterator[Submitter]:
    yield Submitter(stack)
    stack.repair()


@pytest.fixture
def open_window(browser: Browser, stack: Stack) -> Iterator[OpenWindow]:
    """Yield a function that opens a window on the stack; what must not happen in it fails the test."""
    opened: list[Visitor] = []

    def open_window(**options: Any) -> Visitor:
        visitor = Visitor(browser, options.pop("url", stack.url), **options)
        opened.append(visitor)
        return visitor

    yield open_window
    faults = [fault for visitor in opened for fault in visitor.faults]
    for visitor in opened:
        visitor.__exit__(RuntimeError, None, None)
    assert not faults, faults


@pytest.fixture
def visitor(open_window: OpenWindow) -> Visitor:
    """Return a window on a desk."""
    return open_window()
