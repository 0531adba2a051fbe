"""Where the dashboard stands: below a path of another server, and before an API that goes away and comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenWindow
from tests.browser.prefix_proxy import PrefixProxy
from tests.browser.submitter import Submitter
from tests.browser.visitor import Visitor
from tests.stack import Stack

PREFIX: Final = "/jobs/bucket"
AWAY: Final = r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|status of 503"


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_TRUSTED_PROXIES="127.0.0.1")


def test_below_a_path_every_link_form_and_refresh_stays_there(runs: Submitter, open_window: OpenWindow) -> None:
    run = runs.simulate("running:600")
    runs.reaches(run, "running")
    with PrefixProxy(runs.stack.url, PREFIX) as proxy:
        visitor = open_window(url=proxy.url)
        outside: list[str] = []
        visitor.page.on("request", lambda request: outside.append(request.url) if PREFIX not in request.url else None)
        visitor.open("/")
        for name in ("Runs", "Baskets", "Workers", "Dead letters", "Consumers", "Overview"):
            with visitor.page.expect_navigation():
                visitor.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
            assert visitor.page.url.startswith(proxy.url), name
        visitor.open(f"/ui/runs/{run}")
        visitor.press("Cancel")
        assert visitor.page.url == f"{proxy.url}/ui/runs/{run}"
        expect(visitor.page.locator("h1 .status")).to_have_text("cancelled", timeout=12_000)
        assert outside == []
        assert [cookie["path"] for cookie in visitor.cookies()] == [f"{PREFIX}/"]


def test_while_the_api_is_away_the_page_says_so_and_comes_back_by_itself(runs: Submitter, visitor: Visitor) -> None:
    visitor.expect_errors(AWAY)
    first = runs.completed(tags=["restart"])
    visitor.open("/ui/runs?tag=restart")
    banner = visitor.page.get_by_role("status").filter(has_text="Reconnecting")
    expect(banner).to_be_hidden()
    runs.stack.stop("api")
    expect(banner).to_be_visible(timeout=20_000)
    assert visitor.row(first).is_visible(), "what was known is gone"
    assert visitor.page.evaluate("document.body.classList.contains('stale')")
    runs.stack.start("api")
    second = runs.completed(tags=["restart"])
    expect(banner).to_be_hidden(timeout=20_000)
    expect(visitor.row(second)).to_be_visible(timeout=20_000)
    assert not visitor.page.evaluate("document.body.classList.contains('stale')")


def test_what_is_typed_and_unfolded_survives_a_refresh(runs: Submitter, visitor: Visitor) -> None:
    visitor.open("/ui/runs?basket=simulate")
    visitor.page.get_by_label("Reference").fill("half typed")
    new = runs.completed()
    expect(visitor.row(new)).to_be_visible(timeout=12_000)
    assert visitor.page.get_by_label("Reference").input_value() == "half typed"


def test_a_stack_without_a_worker_says_what_to_start(runs: Submitter, visitor: Visitor) -> None:
    runs.stack.kill("worker")
    waiting = runs.simulate("completed")
    visitor.open("/")
    expect(visitor.page.locator(".health")).to_contain_text("Something is not well", timeout=30_000)
    visitor.open("/ui/workers")
    expect(visitor.page.get_by_role("alert").first).to_contain_text("python -m worker", timeout=30_000)
    visitor.open(f"/ui/runs/{waiting}")
    expect(visitor.page.locator(".note")).to_contain_text("none serves its queue", timeout=30_000)
    runs.stack.start("worker")
    expect(visitor.page.locator("h1 .status")).to_have_text("completed", timeout=30_000)
    visitor.open("/")
    expect(visitor.page.locator(".health")).to_contain_text("All is well", timeout=30_000)
