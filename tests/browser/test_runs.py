"""The pages of runs: filters in the address, live rows, and what a person can do with a run."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import expect

from tests.browser.submitter import Submitter
from tests.browser.visitor import Visitor

REFRESHED_MS = 12_000


def shown_id(visitor: Visitor) -> str:
    """Return the id of the run whose page is open."""
    found = re.search(r"/ui/runs/([^/?]+)$", visitor.page.url)
    assert found, visitor.page.url
    return found[1]


def test_filters_stand_in_the_address_under_the_names_of_the_api(runs: Submitter, visitor: Visitor) -> None:
    failed, done = runs.failed(tags=["invoices"]), runs.completed(tags=["invoices"])
    visitor.open("/ui/runs?status=failed")
    assert visitor.row(failed).is_visible()
    assert not visitor.row(done).is_visible()
    visitor.page.get_by_label("Tag").fill("invoices")
    visitor.press("Filter")
    assert "status=failed" in visitor.page.url
    assert "tag=invoices" in visitor.page.url
    assert visitor.row(failed).is_visible()
    visitor.page.get_by_label("Tag").fill("nothing has this")
    visitor.press("Filter")
    assert "No run matches" in visitor.page.locator("#main").inner_text()


def test_a_filter_that_the_api_refuses_is_named(visitor: Visitor) -> None:
    visitor.expect_errors("status of 400")
    assert visitor.open("/ui/runs?stauts=failed") == 400
    assert "stauts" in visitor.page.get_by_role("alert").inner_text()


def test_rows_change_by_themselves_without_losing_what_was_selected(runs: Submitter, visitor: Visitor) -> None:
    running = runs.simulate("running:600", tags=["live"])
    runs.reaches(running, "running")
    visitor.open("/ui/runs?tag=live")
    row = visitor.row(running)
    row.get_by_role("checkbox").check()
    row.evaluate("node => { node.sameNode = true; }")
    newer = runs.completed(tags=["live"])
    runs.call("POST", f"/executions/{running}/cancel", {})
    expect(row.locator(".status")).to_have_text("cancelled", timeout=REFRESHED_MS)
    expect(visitor.row(newer)).to_be_visible(timeout=REFRESHED_MS)
    assert row.get_by_role("checkbox").is_checked()
    assert row.evaluate("node => node.sameNode") is True, "the row was replaced"
    expect(visitor.page.locator("#selected-count")).to_have_text("1 selected:")


def test_the_page_of_a_run_follows_it_to_its_end_and_then_rests(runs: Submitter, visitor: Visitor) -> None:
    run = runs.simulate("running:2@90", "completed")
    visitor.open(f"/ui/runs/{run}")
    expect(visitor.page.locator("h1 .status")).to_have_text("completed", timeout=20_000)
    expect(visitor.button("Cancel")).to_have_count(0)
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.page.wait_for_timeout(6_000)  # longer than any pause between two refreshes
    assert asked == []


def test_cancel(runs: Submitter, visitor: Visitor) -> None:
    run = runs.simulate("running:600")
    runs.reaches(run, "running")
    visitor.open(f"/ui/runs/{run}")
    visitor.press("Cancel")
    expect(visitor.page.locator("h1 .status")).to_have_text("cancelled", timeout=REFRESHED_MS)
    runs.ended(run, "cancelled")


def test_retry_makes_a_linked_run_and_a_form_that_is_sent_twice_makes_one(runs: Submitter, visitor: Visitor) -> None:
    failed = runs.failed()
    visitor.open(f"/ui/runs/{failed}")
    form = visitor.page.locator("form", has=visitor.button("Retry"))
    fields = form.evaluate("form => Object.fromEntries(new FormData(form))")
    visitor.press("Retry")
    retry = shown_id(visitor)
    assert retry != failed
    assert visitor.page.get_by_role("link", name=failed).is_visible()
    again = visitor.page.request.post(f"{visitor.url}/ui/runs/{failed}/retry", form=fields)
    assert shown_in(again.url) == retry
    assert [each["execution_id"] for each in runs.listed(f"retry_of={failed}")] == [retry]
    visitor.open(f"/ui/runs/{failed}")
    assert visitor.page.get_by_role("link", name=retry).is_visible()


def shown_in(url: str) -> str:
    return url.rsplit("/", 1)[1]


def test_selected_runs_are_cancelled_and_the_others_go_on(runs: Submitter, visitor: Visitor) -> None:
    chosen = [runs.simulate("running:600", tags=["many"]) for _ in range(2)]
    other = runs.simulate("running:600", tags=["many"])
    visitor.open("/ui/runs?tag=many")
    expect(visitor.button("Cancel selected")).to_be_disabled()
    for run in chosen:
        visitor.row(run).get_by_role("checkbox").check()
    visitor.press("Cancel selected")
    assert "2 cancelled" in visitor.page.locator("#main").inner_text()
    assert "tag=many" in visitor.page.url
    for run in chosen:
        runs.ended(run, "cancelled")
    assert not runs.call("GET", f"/executions/{other}")["done"]
    runs.call("POST", f"/executions/{other}/cancel", {})


def test_a_whole_page_is_selected_at_once_and_retried(runs: Submitter, visitor: Visitor) -> None:
    failed = [runs.failed(tags=["page"]) for _ in range(3)]
    visitor.open("/ui/runs?tag=page&status=failed")
    visitor.page.get_by_label("Select all on this page").check()
    expect(visitor.page.locator("#selected-count")).to_have_text("3 selected:")
    visitor.press("Retry selected")
    assert "3 retried" in visitor.page.locator("#main").inner_text()
    assert all(len(runs.listed(f"retry_of={run}")) == 1 for run in failed)


def test_all_that_match_are_counted_first_and_then_cancelled(runs: Submitter, visitor: Visitor) -> None:
    matching = [runs.simulate("completed", run_after_s=600, tags=["bulk"]) for _ in range(3)]
    other = runs.simulate("completed", run_after_s=600)
    visitor.open("/ui/runs")
    expect(visitor.button("Cancel all that match")).to_have_count(0)
    visitor.open("/ui/runs?tag=bulk")
    visitor.press("Cancel all that match")
    assert visitor.page.locator("h1").inner_text() == "Cancel 3 runs?"
    assert not runs.call("GET", f"/executions/{matching[0]}")["done"]
    visitor.press("Cancel 3 runs")
    assert runs.ended(shown_id(visitor), "completed")["result"]["done"] == 3
    for run in matching:
        runs.ended(run, "cancelled")
    assert not runs.call("GET", f"/executions/{other}")["done"]
    runs.call("POST", f"/executions/{other}/cancel", {})


def test_the_timeline_tells_waiting_a_rescue_and_attempts_apart(runs: Submitter, visitor: Visitor) -> None:
    run = runs.simulate("running:1@40", "worker_lost", "running:0.5", "completed")
    runs.ended(run, "completed")
    visitor.open(f"/ui/runs/{run}")
    bars = visitor.page.locator(".timeline rect").evaluate_all("all => all.map(each => each.getAttribute('class'))")
    assert "lost" in bars
    assert bars[-1] == "completed"
    assert "2 attempts" in visitor.page.locator(".timeline").inner_text()


def test_a_run_that_waits_says_why(runs: Submitter, visitor: Visitor) -> None:
    run = runs.simulate("queued:60", "completed")
    visitor.open(f"/ui/runs/{run}")
    assert "waits for" in visitor.page.locator("#main").inner_text()
    runs.call("POST", f"/executions/{run}/cancel", {})


def test_a_form_of_another_session_does_nothing(runs: Submitter, visitor: Visitor) -> None:
    run = runs.simulate("running:600")
    visitor.open(f"/ui/runs/{run}")
    address = f"{visitor.url}/ui/runs/{run}/cancel"
    refusals: list[dict[str, Any]] = [
        {"form": {}},
        {"form": {"csrf_token": "0" * 64}},
        {"form": {"csrf_token": token_of(visitor)}, "headers": {"Sec-Fetch-Site": "cross-site"}},
        {"form": {"csrf_token": token_of(visitor)}, "headers": {"Cookie": "bucket_session=" + "a" * 64}},
    ]
    for refused in refusals:
        assert visitor.page.request.post(address, **refused).status == 403, refused
    assert not runs.call("GET", f"/executions/{run}")["done"]
    visitor.press("Cancel")  # the same, with all that is right
    runs.ended(run, "cancelled")


def token_of(visitor: Visitor) -> str:
    return visitor.page.locator("input[name=csrf_token]").first.input_value()
