"""What the pages show and do, for each role, in the name of who is logged in."""

from __future__ import annotations

import json
import re

import pytest

from shared.domain.access.caller import Role
from tests.integration.api.dashboard.conftest import TRACE_URL, Dashboard
from tests.waiting import wait_until

MARKUP = "<b title='x'>&amp; harmless"


def run_ids(html: str) -> set[str]:
    return set(re.findall(r'data-execution-id="([^"]+)"', html))


def buttons(html: str) -> set[str]:
    return {text for text in re.findall(r"<button[^>]*>([^<]+)</button>", html) if text not in {"Log out", "Filter"}}


def test_a_visitor_sees_the_runs_of_its_integrator_alone(dashboard: Dashboard) -> None:
    ours, theirs = dashboard.submit("acme"), dashboard.submit("zenith")
    visitor = dashboard.logged_in(Role.OPERATOR, "acme")
    assert run_ids(visitor.get("/ui/runs").text) == {ours}
    assert visitor.get(f"/ui/runs/{theirs}").status_code == 404
    assert visitor.post(f"/ui/runs/{theirs}/cancel").status_code == 404
    assert run_ids(dashboard.logged_in(Role.ADMIN).get("/ui/runs").text) == {ours, theirs}


def test_a_reader_sees_no_buttons_no_payloads_and_can_do_nothing(dashboard: Dashboard) -> None:
    run = dashboard.submit(input_data={"transactions": [{"id": 1, "amount": 5, "description": "only for eyes"}]})
    reader = dashboard.logged_in(Role.READER)
    for page in ("/ui/runs", f"/ui/runs/{run}", "/ui/baskets", "/ui/baskets/working_test/run", "/ui/consumers"):
        html = reader.get(page).text
        assert buttons(html) == set(), page
        assert "/ui/workers" not in html, "no link to what it may not see"
        assert "only for eyes" not in html
    for path, form in (
        (f"/ui/runs/{run}/cancel", {}),
        (f"/ui/runs/{run}/retry", {}),
        ("/ui/runs", {"action": "cancel", "execution_id": run}),
        ("/ui/baskets/working_test/run", {"json": "{}"}),
    ):
        assert reader.post(path, **form).status_code == 403, path
    assert dashboard.services.store.load("acme", run).status == "queued"
    assert "only for eyes" in dashboard.logged_in(Role.OPERATOR).get(f"/ui/runs/{run}").text


def test_an_integrator_has_the_buttons_of_runs_and_none_of_dead_letters(dashboard: Dashboard) -> None:
    run = dashboard.submit()
    visitor = dashboard.logged_in(Role.INTEGRATOR)
    assert {"Cancel", "Run again"} <= buttons(visitor.get(f"/ui/runs/{run}").text)
    assert visitor.get("/ui/dead-letters").status_code == 403
    assert dashboard.logged_in(Role.OPERATOR).get("/ui/dead-letters").status_code == 200


def test_a_run_is_linked_to_its_trace_if_that_was_exported(dashboard: Dashboard) -> None:
    visitor = dashboard.logged_in()
    for flags, is_linked in (("01", True), ("00", False)):
        run = dashboard.submit(headers={"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-{flags}"})
        page = visitor.get(f"/ui/runs/{run}").text
        assert ("a1" * 16 in page, f'href="{TRACE_URL.format(trace_id="a1" * 16)}"' in page) == (True, is_linked)
    assert "Trace" not in visitor.get(f"/ui/runs/{dashboard.submit()}").text


def test_the_overview_charts_what_ended_in_the_last_hour(dashboard: Dashboard) -> None:
    run = dashboard.submit()
    visitor = dashboard.logged_in()
    assert visitor.post(f"/ui/runs/{run}/cancel").status_code == 303
    said = 'aria-label="1 run ended, at most 1 in a minute in the last hour"'
    wait_until(lambda: said in visitor.get("/").text, 5, "the figures, which are kept for a second, are read again")
    page = visitor.get("/").text
    assert re.search(r"<title>\d\d:\d\d UTC: 1 cancelled</title><rect class=\"cancelled\"", page)
    assert 'aria-label="No run ended in the last hour"' in page, "a run that never began took no time"


def test_selected_runs_are_retried_once_also_if_two_people_click(dashboard: Dashboard) -> None:
    run = dashboard.submit()
    visitors = [dashboard.logged_in() for _ in range(2)]
    assert visitors[0].post(f"/ui/runs/{run}/cancel").status_code == 303
    [form_key] = re.findall(r'name="form_key" value="([\w-]+)"', visitors[0].get("/ui/runs").text)
    for visitor in visitors:
        done = visitor.post("/ui/runs", action="retry", execution_id=run, form_key=form_key)
        assert "1+retried" in done.headers["Location"]
    assert len(run_ids(visitors[0].get(f"/ui/runs?retry_of={run}").text)) == 1
    visitors[0].post("/ui/runs", action="retry", execution_id=run, form_key="of-a-later-minute")
    assert len(run_ids(visitors[0].get(f"/ui/runs?retry_of={run}").text)) == 2


def test_run_again_sends_what_the_form_shows(dashboard: Dashboard) -> None:
    extra = {"k": [1, "two"]}
    given = {"transactions": [{"id": 1, "amount": 5, "description": "tea"}], "extra": extra}
    run = dashboard.submit(input_data=given)
    visitor = dashboard.logged_in()
    page = visitor.get(f"/ui/baskets/working_test/run?from={run}").text
    assert f"?as=json&amp;from={run}" in page
    controls = {
        "field.transactions": '[{"id": 1, "amount": 5, "description": "tea"}]',
        "field.extra": '{"k": [1, "two"]}',
    }
    assert all(f'name="{name}"' in page for name in controls)
    again = visitor.post("/ui/baskets/working_test/run", **controls, **{"from": run})
    sent = dashboard.services.store.read("acme", again.headers["Location"].rpartition("/")[2], outputs=())
    assert json.loads(sent.execution.input)["extra"] == extra


def test_an_admin_deletes_the_consumer_of_the_row_and_no_other(dashboard: Dashboard) -> None:
    for integrator in ("acme", "public"):
        headers = {"Authorization": f"Bearer {dashboard.key(Role.INTEGRATOR, integrator)['key']}"}
        assert dashboard.app.test_client().put("/consumers/ledger", headers=headers).status_code == 201
    admin = dashboard.logged_in(Role.ADMIN, "public")
    page = admin.get("/ui/consumers").text
    assert set(re.findall(r'data-key="(\w+/ledger)"', page)) == {"acme/ledger", "public/ledger"}
    assert admin.post("/ui/consumers/ledger/delete", integrator="acme").status_code == 303
    assert re.findall(r'data-key="(\w+/ledger)"', admin.get("/ui/consumers").text) == ["public/ledger"]


def test_texts_of_callers_are_texts(dashboard: Dashboard) -> None:
    run = dashboard.submit(
        tags=[MARKUP], reference=MARKUP, input_data={"transactions": [{"id": 1, "amount": 5, "description": MARKUP}]}
    )
    visitor = dashboard.logged_in()
    for page in (f"/ui/runs/{run}", "/ui/runs", f"/ui/baskets/working_test/run?from={run}", f"/ui/runs?tag={MARKUP}"):
        html = visitor.get(page).text
        assert MARKUP not in html, page
        assert "&lt;b title=" in html, page


def test_filters_stand_in_the_address_and_a_wrong_one_is_refused(dashboard: Dashboard) -> None:
    tagged, _ = dashboard.submit(tags=["nightly"]), dashboard.submit()
    visitor = dashboard.logged_in()
    assert run_ids(visitor.get("/ui/runs?tag=nightly").text) == {tagged}
    assert run_ids(visitor.get("/ui/runs?status=failed").text) == set()
    wrong = visitor.get("/ui/runs?state=failed")
    assert wrong.status_code == 400
    assert "state" in wrong.text
    assert 'role="alert"' in wrong.text


def test_a_basket_is_run_with_its_form_once_also_if_the_form_is_sent_twice(dashboard: Dashboard) -> None:
    visitor = dashboard.logged_in()
    html = visitor.get("/ui/baskets/working_test/run").text
    [form_key] = re.findall(r'name="form_key" value="(\w+)"', html)
    form = {"form_key": form_key, "field.transactions": '[{"id": 1, "amount": 7.5, "description": "tea"}]'}
    first, second = (visitor.post("/ui/baskets/working_test/run", **form) for _ in range(2))
    assert first.status_code == 303
    assert first.headers["Location"] == second.headers["Location"]
    page = visitor.get(first.headers["Location"]).text
    assert "7.5" in page
    assert len(run_ids(visitor.get("/ui/runs").text)) == 1


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"field.transactions": "[1"}, "transactions must be JSON"),
        ({"field.transactions": '"text"'}, "transactions"),
        ({"json": "{"}, "no JSON"),
        ({"json": "[]"}, "must be a JSON object"),
    ],
)
def test_a_wrong_form_says_what_is_wrong_and_keeps_what_was_typed(
    dashboard: Dashboard, form: dict[str, str], words: str
) -> None:
    visitor = dashboard.logged_in()
    visitor.get("/ui/baskets/working_test/run")
    response = visitor.post("/ui/baskets/working_test/run", **form)
    assert response.status_code == 400
    assert words in response.text
    [typed] = form.values()
    assert typed.replace('"', "&#34;") in response.text
    assert run_ids(visitor.get("/ui/runs").text) == set()


def test_run_again_begins_with_the_input_of_that_run(dashboard: Dashboard) -> None:
    run = dashboard.submit(input_data={"transactions": [{"id": 1, "amount": 41.25, "description": "rent"}]})
    assert "41.25" in dashboard.logged_in().get(f"/ui/baskets/working_test/run?from={run}").text


def test_selected_runs_are_cancelled_and_what_is_over_is_skipped(dashboard: Dashboard) -> None:
    first, second, visitor = dashboard.submit(), dashboard.submit(), dashboard.logged_in()
    done = visitor.post("/ui/runs", action="retry", execution_id=[first, "1796221499_0000000000000000"])
    assert "0+retried%2C+2+skipped" in done.headers["Location"], (
        "a queued run cannot be retried, an unknown one neither"
    )
    done = visitor.post("/ui/runs", action="cancel", execution_id=[first, second], query="tag=x")
    assert done.headers["Location"] == "/ui/runs?tag=x&done=2+cancelled"
    assert {dashboard.services.store.load("acme", run).status for run in (first, second)} == {"cancelled"}


def test_a_page_that_has_not_changed_is_not_sent_again(dashboard: Dashboard) -> None:
    dashboard.submit()
    visitor = dashboard.logged_in()
    first = visitor.get("/ui/runs")
    same = visitor.get("/ui/runs", If_None_Match=first.headers["ETag"])
    assert (same.status_code, same.text) == (304, "")
    dashboard.submit()
    assert visitor.get("/ui/runs", If_None_Match=first.headers["ETag"]).status_code == 200


def test_an_unknown_page_of_a_thing_says_so_in_words(dashboard: Dashboard) -> None:
    visitor = dashboard.logged_in()
    for path in ("/ui/runs/1796221499_0000000000000000", "/ui/baskets/nothing", "/ui/agents/nothing", "/ui/runs/%00"):
        response = visitor.get(path)
        assert response.status_code == 404, path
        assert "That did not work" in response.text
        assert "Traceback" not in response.text


def test_all_that_match_are_offered_with_a_filter_to_who_may(dashboard: Dashboard) -> None:
    dashboard.submit(tags=["nightly"])
    operator, integrator = dashboard.logged_in(Role.OPERATOR), dashboard.logged_in(Role.INTEGRATOR)
    offered = "Cancel all that match"
    assert offered not in operator.get("/ui/runs").text, "without a filter that would be all runs there are"
    assert offered in operator.get("/ui/runs?tag=nightly").text
    assert offered not in integrator.get("/ui/runs?tag=nightly").text
    assert integrator.post("/ui/actions", action="cancel", query="tag=nightly").status_code == 403
    refused = operator.post("/ui/actions", action="cancel", query="")
    assert refused.status_code == 400
    assert "filter" in refused.text
