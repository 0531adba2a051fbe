"""GET /audit: no event is skipped, whatever is stored meanwhile; each reader sees what is its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.audit.routes import encode_since
from shared.domain.access.audit_event import AuditEvent, Outcome
from shared.domain.access.caller import Role
from tests.integration.api.audit.conftest import Api

RUN = {"basket_name": "working_test", "input_data": {"transactions": []}}


def add(api: Api, object_id: str, integrator: str | None = "acme", action: str = "execution.cancel") -> None:
    api.services.audit.add(
        AuditEvent(
            at=api.services.clock.now(), action=action, outcome=Outcome.OK, subject="key:x",
            integrator=integrator, object=object_id,
        )
    )  # fmt: skip


def test_paging_skips_and_repeats_nothing_while_events_are_stored(api: Api) -> None:
    total, since, seen = 60, "", []
    with ThreadPoolExecutor(4) as writers:
        done = [writers.submit(add, api, str(number)) for number in range(total)]
        while len(seen) < total:
            page = api.send("GET", f"/audit?limit=7{since}").get_json()
            seen += [(event["seq"], event["object"]) for event in page["events"]]
            since = f"&since={page['next_since']}"
            if all(each.done() for each in done) and not page["events"]:
                break

    assert [seq for seq, _ in seen] == list(range(1, total + 1))
    assert {object_id for _, object_id in seen} == set(map(str, range(total)))


def test_a_cursor_stays_valid_and_finds_what_comes_later(api: Api) -> None:
    first = api.send("GET", "/audit").get_json()
    assert first["events"] == []
    add(api, "one")
    for _ in range(2):
        page = api.send("GET", f"/audit?since={first['next_since']}").get_json()
        assert [event["object"] for event in page["events"]] == ["one"]
    assert api.send("GET", f"/audit?since={page['next_since']}").get_json()["events"] == []


def test_a_page_without_a_match_leads_past_what_it_has_looked_at(api: Api) -> None:
    for number in range(3):
        add(api, str(number))
    page = api.send("GET", "/audit?action=basket.create").get_json()

    assert page["events"] == []
    assert page["next_since"] == api.send("GET", "/audit").get_json()["next_since"]


@pytest.mark.parametrize("since", ["x", "AAAA", "bmV4dA"])
def test_a_cursor_that_was_made_up_is_refused(api: Api, since: str) -> None:
    reply = api.send("GET", f"/audit?since={since}")
    assert (reply.status_code, reply.get_json()["error_code"]) == (400, "cursor_invalid")


def test_a_cursor_beyond_a_restored_log_is_refused(api: Api) -> None:
    add(api, "one")
    since = api.send("GET", "/audit").get_json()["next_since"]
    api.services.database.collection("audit").delete_many({})

    reply = api.send("GET", f"/audit?since={since}")
    assert (reply.status_code, reply.get_json()["error_code"]) == (400, "cursor_invalid")


def test_an_auditor_sees_its_integrator_and_an_admin_all(api: Api) -> None:
    for object_id, integrator in (("a", "acme"), ("b", "other"), ("c", None)):
        add(api, object_id, integrator)
    auditor = api.key(Role.AUDITOR, "acme")

    assert [event["object"] for event in api.events(key=auditor)] == ["a"]
    assert [event["object"] for event in api.events()] == ["a", "b", "c"]
    assert api.send("GET", "/audit", key=api.key(Role.OPERATOR, "acme")).status_code == 403


def test_events_are_filtered_by_action_and_subject(api: Api) -> None:
    add(api, "a")
    add(api, "b", action="basket.create")
    api.send("POST", "/run-basket", RUN)

    assert [event["object"] for event in api.events("&action=basket.create")] == ["b"]
    assert len(api.events("&action=execution.*")) == 2
    assert len(api.events("&action=basket.create,execution.cancel")) == 2
    assert [event["object"] for event in api.events("&subject=key:x")] == ["a", "b"]


def test_an_unknown_action_is_refused_with_the_nearest(api: Api) -> None:
    reply = api.send("GET", "/audit?action=execution.submitt")
    assert (reply.status_code, "did you mean execution.submit?" in reply.get_json()["detail"]) == (400, True)
    assert api.send("GET", "/audit?actions=execution.submit").status_code == 400


def test_a_subject_without_its_kind_is_refused(api: Api) -> None:
    add(api, "one")
    assert [event["object"] for event in api.send("GET", "/audit?subject=key:x").get_json()["events"]] == ["one"]
    reply = api.send("GET", "/audit?subject=x")
    assert (reply.status_code, reply.get_json()["error_code"]) == (400, "validation_failed")
    assert "key:ID" in reply.get_json()["detail"]


@pytest.mark.parametrize("changes", [{"$unset": {"action": ""}}, {"$set": {"before": "{bad"}}, {"$set": {"at": "x"}}])
def test_an_event_that_cannot_be_read_hides_no_other_and_has_a_placeholder(api: Api, changes: dict[str, Any]) -> None:
    for number in range(3):
        add(api, str(number))
    [_, event, _] = api.events()
    api.services.database.collection("audit").update_one({"_id": 2}, changes)

    [first, placeholder, last] = api.events()
    assert (first["object"], last["object"]) == ("0", "2")
    assert (placeholder["seq"], placeholder["action"], placeholder["outcome"]) == (2, "audit.unreadable", "unknown")
    assert (placeholder["subject"], placeholder["integrator"]) == (event["subject"], event["integrator"])
    [placeholder] = api.send("GET", "/audit?limit=1&since=" + encode_since(1)).get_json()["events"]
    assert placeholder["seq"] == 2


def test_an_event_that_cannot_be_read_where_it_waits_stops_no_numbering(api: Api) -> None:
    pending = {"_id": "req-zz", "at": api.services.clock.now(), "subject": "key:x", "outcome": "ok"}
    api.services.database.collection("audit_pending").insert_one(pending)
    add(api, "later")
    assert [event["object"] for event in api.events()] == ["req-zz", "later"]
    assert [event["object"] for event in api.events("&action=audit.*")] == ["req-zz"]
