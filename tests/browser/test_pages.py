"""Each page of the dashboard: it opens, a keyboard and a screen reader can use it, it fits a phone, text stays text."""

from __future__ import annotations

from typing import Final

import pytest

from tests.browser.conftest import OpenWindow
from tests.browser.submitter import Submitter
from tests.browser.visitor import PHONE, Visitor
from tests.stack import Stack

PAGES: Final = {
    "/": "Overview",
    "/ui/runs": "Runs",
    "/ui/runs?status=failed": "Runs",
    "/ui/runs/{done}": "simulate completed",
    "/ui/runs/{failed}": "simulate failed",
    "/ui/runs/{running}": "simulate running",
    "/ui/baskets": "Baskets",
    "/ui/baskets/financial_operations": "financial_operations",
    "/ui/baskets/vehicle_checkup/run": "Run vehicle_checkup",
    "/ui/baskets/vehicle_checkup/run?as=json": "Run vehicle_checkup",
    "/ui/agents/cashflow_analyzer": "cashflow_analyzer",
    "/ui/workers": "Workers",
    "/ui/dead-letters": "Dead letters",
    "/ui/consumers": "Consumers of the feed",
}
MARKUP: Final = "<b id='mark'>bold</b><img src=x onerror=document.title='mark'>"


@pytest.fixture(scope="module")
def ids(stack: Stack) -> dict[str, str]:
    """Return the ids of one run of each kind, on a stack where each list has something to show."""
    runs = Submitter(stack)
    runs.call("PUT", "/consumers/ledger-export")
    found = {"done": runs.completed(tags=["nightly"]), "failed": runs.failed()}
    found["running"] = runs.simulate("running:600@50", reference="INV-2041")
    runs.reaches(found["running"], "running")
    return found


@pytest.mark.parametrize("path", PAGES)
def test_a_page_opens_and_nothing_serious_is_wrong_for_a_screen_reader(
    path: str, ids: dict[str, str], open_window: OpenWindow, axe: str
) -> None:
    for scheme in ("light", "dark"):
        visitor = open_window(scheme=scheme)
        assert visitor.open(path.format(**ids)) == 200
        assert visitor.page.locator("h1").inner_text() == PAGES[path]
        assert visitor.serious_faults(axe) == [], scheme


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_no_wider_than_a_phone(path: str, ids: dict[str, str], open_window: OpenWindow) -> None:
    visitor = open_window(size=PHONE)
    visitor.open(path.format(**ids))
    assert visitor.overhang() <= 0


def test_a_keyboard_reaches_the_content_and_each_page(ids: dict[str, str], visitor: Visitor) -> None:
    visitor.open("/")
    focused = "document.activeElement.textContent.trim()"
    visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate(focused) == "Skip to the content"
    visitor.page.keyboard.press("Enter")
    assert visitor.page.evaluate("document.activeElement.id") == "main"
    visitor.open("/")
    reached = []
    for _ in range(8):
        visitor.page.keyboard.press("Tab")
        reached.append(visitor.page.evaluate(focused))
        outline = visitor.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", reached
    assert reached == [
        "Skip to the content", "Bucket", "Overview", "Runs", "Baskets", "Workers", "Dead letters", "Consumers",
    ]  # fmt: skip
    with visitor.page.expect_navigation():
        visitor.page.keyboard.press("Enter")
    assert visitor.page.url.endswith("/ui/consumers")


def test_markup_in_a_run_is_text_on_every_page(runs: Submitter, visitor: Visitor) -> None:
    """Of the input, a tag, a reference, a reason: everything that another program can have written."""
    marked = runs.simulate("running:600", reference=MARKUP, tags=[MARKUP], metadata={"note": MARKUP})
    runs.reaches(marked, "running")
    runs.call("POST", f"/executions/{marked}/cancel", {"reason": MARKUP})
    runs.ended(marked, "cancelled")
    text = runs.submit(input_data={"transactions": [{"id": 1, "amount": 1, "description": MARKUP}]})
    runs.ended(text)
    for path in ("/", "/ui/runs", "/ui/runs?basket=%3Cb+id%3D'mark'%3E", f"/ui/runs/{marked}", f"/ui/runs/{text}"):
        visitor.open(path)
        assert visitor.page.locator("#mark").count() == 0, path
        assert visitor.page.title() != "mark", path
    assert MARKUP in visitor.page.locator("#main").inner_text()
    visitor.open(f"/ui/runs/{marked}")
    assert MARKUP in visitor.page.locator("#main").inner_text()


def test_every_page_has_a_strict_policy_and_no_inline_script_or_style(ids: dict[str, str], visitor: Visitor) -> None:
    for path in PAGES:
        reply = visitor.page.goto(visitor.url + path.format(**ids))
        assert reply is not None
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        inline = "script:not([src]), style, [style], [onclick], [onload], [onerror]"
        assert visitor.page.locator(inline).count() == 0, path


def test_a_page_that_is_not_there_says_so_with_a_way_back(visitor: Visitor) -> None:
    visitor.expect_errors("status of 404")
    assert visitor.open("/ui/runs/x") == 404
    assert "That did not work" in visitor.page.locator("h1").inner_text()
    with visitor.page.expect_navigation():
        visitor.page.get_by_role("link", name="overview", exact=True).click()
    assert visitor.page.locator("h1").inner_text() == "Overview"


def test_pages_can_be_read_and_forms_sent_without_script(runs: Submitter, open_window: OpenWindow) -> None:
    running = runs.simulate("running:600")
    runs.reaches(running, "running")
    visitor = open_window(script=False)
    visitor.open(f"/ui/runs/{running}")
    visitor.press("Cancel")
    runs.ended(running, "cancelled")
    visitor.open("/ui/runs?status=cancelled")
    assert visitor.row(running).is_visible()
