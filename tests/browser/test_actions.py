"""What a person does beside runs: the form of a basket, dead letters, and the consumers of the feed."""

from __future__ import annotations

import json

import requests
from playwright.sync_api import expect

from tests.browser.submitter import Submitter
from tests.browser.visitor import Visitor


def shown_id(visitor: Visitor) -> str:
    return visitor.page.url.rsplit("/", 1)[1]


def test_a_basket_is_found_drawn_and_run_with_its_sample(runs: Submitter, visitor: Visitor) -> None:
    visitor.open("/ui/baskets")
    visitor.page.get_by_role("link", name="financial_operations", exact=True).click()
    graph = visitor.page.locator("svg.graph")
    steps = graph.locator("text").all_inner_texts()
    assert len(steps) == graph.locator("rect").count() == graph.locator("path.edge").count() + 1
    visitor.press("Run")
    visitor.press("Run")
    runs.ended(shown_id(visitor), "completed")
    expect(visitor.page.locator("h1 .status")).to_have_text("completed", timeout=12_000)


def test_run_again_with_changes(runs: Submitter, visitor: Visitor) -> None:
    given = {"transactions": [{"id": 1, "amount": 12.5, "description": "rent"}]}
    first = runs.submit(input_data=given)
    runs.ended(first, "completed")
    visitor.open(f"/ui/runs/{first}")
    visitor.press("Run again")
    field = visitor.page.get_by_label("transactions")
    assert json.loads(field.input_value()) == given["transactions"]
    changed = [{"id": 2, "amount": 99.5, "description": "light"}]
    field.fill(json.dumps(changed))
    visitor.press("Run")
    second = shown_id(visitor)
    assert second != first
    assert runs.call("GET", f"/executions/{second}/input")["transactions"] == changed


def test_a_field_with_a_fault_is_named_and_what_was_typed_stays(runs: Submitter, visitor: Visitor) -> None:
    visitor.expect_errors("status of 400")
    visitor.open("/ui/baskets/working_test/run")
    visitor.page.get_by_label("transactions").fill('[{"id": 1,')
    visitor.press("Run")
    assert "transactions must be JSON" in visitor.page.get_by_role("alert").inner_text()
    assert visitor.page.get_by_label("transactions").input_value() == '[{"id": 1,'


def test_a_basket_is_run_with_raw_json(runs: Submitter, visitor: Visitor) -> None:
    visitor.open("/ui/baskets/simulate/run")
    visitor.page.get_by_role("link", name="JSON", exact=True).click()
    visitor.page.get_by_label("Input, a JSON object").fill('{"script": ["failed:out_of_stock"]}')
    visitor.press("Run")
    view = runs.ended(shown_id(visitor), "failed")
    assert view["error"]["error_code"] == "out_of_stock"


def test_dead_letters_are_grouped_requeued_and_dismissed(runs: Submitter, visitor: Visitor) -> None:
    once = runs.simulate("worker_lost", "worker_lost", "worker_lost")
    twice = [runs.dead_letter() for _ in range(2)]
    runs.ended(once, "failed")
    code, other = (runs.call("GET", f"/executions/{each}")["error"]["error_code"] for each in (twice[0], once))
    assert (code != other, other) == (True, "worker_lost")
    visitor.open("/ui/dead-letters")
    headings = [" ".join(text.split()) for text in visitor.page.locator("section h2").all_inner_texts()]
    assert headings == [f"{code} 2", f"{other} 1"]
    with visitor.page.expect_navigation():
        visitor.row(once).get_by_role("button", name="Requeue").click()
    assert [each["execution_id"] for each in runs.listed(f"retry_of={once}")] == [shown_id(visitor)]
    visitor.open("/ui/dead-letters")
    expect(visitor.row(once)).to_have_count(0)
    with visitor.page.expect_navigation():
        visitor.row(twice[0]).get_by_role("button", name="Dismiss").click()
    expect(visitor.row(twice[0])).to_have_count(0)
    assert runs.call("GET", f"/executions/{twice[0]}")["status"] == "failed"
    visitor.page.get_by_label(f"Select all with {code}").check()
    visitor.press("Requeue selected")
    assert "1 requeued" in visitor.page.locator("#main").inner_text()
    assert len(runs.listed(f"retry_of={twice[1]}")) == 1


def test_all_dead_letters_with_a_code_are_counted_first_and_then_dismissed(runs: Submitter, visitor: Visitor) -> None:
    letters = [runs.dead_letter() for _ in range(3)]
    code = runs.call("GET", f"/executions/{letters[0]}")["error"]["error_code"]
    visitor.open("/ui/dead-letters")
    listed = visitor.page.locator(f"section[data-key={code}] tbody tr").count()
    assert listed >= 3
    visitor.press(f"Dismiss all with {code}")
    assert visitor.page.locator("h1").inner_text() == f"Dismiss {listed} runs?"
    expect(visitor.page.get_by_role("link", name="Back")).to_have_attribute("href", "/ui/dead-letters")
    visitor.press(f"Dismiss {listed} runs")
    assert runs.ended(shown_id(visitor), "completed")["result"]["done"] == listed
    visitor.open("/ui/dead-letters")
    for letter in letters:
        expect(visitor.row(letter)).to_have_count(0)
        assert runs.call("GET", f"/executions/{letter}")["status"] == "failed"


def test_an_empty_list_says_what_to_do_next(visitor: Visitor) -> None:
    visitor.open("/ui/dead-letters?error_code=nothing_has_this")
    assert "Nothing has failed for good" in visitor.page.locator("#main").inner_text()
    visitor.open("/ui/consumers")
    assert "PUT /consumers/NAME" in visitor.page.locator("#main").inner_text()


def test_a_consumer_shows_how_far_behind_it_is_and_can_be_deleted(runs: Submitter, visitor: Visitor) -> None:
    runs.call("PUT", "/consumers/ledger-export")
    runs.completed()
    visitor.open("/ui/consumers")
    row = visitor.page.locator("tr", has_text="ledger-export")
    expect(row).to_be_visible()
    with visitor.page.expect_navigation():
        row.get_by_role("button", name="Delete").click()
    reply = requests.get(f"{runs.stack.url}/consumers", timeout=10)
    assert reply.json()["consumers"] == []
