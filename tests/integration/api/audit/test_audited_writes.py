"""Each write has its event, stored before its answer; refusals too; nothing holds a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from api.audit import audited_routes
from api.audit.recorder import AUTH_EVENTS_MAX, REFUSALS_MAX
from shared import fault_injection
from shared.domain.access.audit_event import BEGUN_MAX_S
from shared.domain.access.caller import Role
from shared.live.log_stream import LOG_STREAM_KEY
from tests.integration.api.audit.conftest import Api
from tests.waiting import wait_until

BASKET = {"name": "mine", "agents": ["text_to_json"]}
RUN = {"basket_name": "working_test", "input_data": {"transactions": []}}
NOBODY = "1700000000_0123456789abcdef"


def test_a_submit_is_stored_together_with_its_event(api: Api) -> None:
    reply = api.send("POST", "/run-basket", RUN, headers={"X-Request-ID": "order-7"})

    [event] = api.stored()
    assert (event["action"], event["object"]) == ("execution.submit", reply.get_json()["execution_id"])
    [event] = api.events()
    assert event["subject"] == f"key:{event['key_id']}"
    assert event["address"] == "127.0.0.1"
    assert event["integrator"] == "public"
    assert (event["outcome"], event["request_id"], event["seq"]) == ("ok", "order-7", 1)
    assert len(api.stored()) == 1


def test_a_repeated_submit_makes_no_second_event(api: Api) -> None:
    for _ in range(2):
        assert api.send("POST", "/run-basket", RUN, headers={"Idempotency-Key": "once"}).status_code == 202

    assert len(api.events()) == 1


def test_a_key_that_was_written_into_a_definition_is_not_in_its_event(api: Api) -> None:
    key = api.send("POST", "/keys", {"role": "reader", "integrator": "acme"}).get_json()["key"]
    assert api.send("POST", "/create-basket", BASKET | {"description": f"polled with {key}"}).status_code == 201
    [event] = [event for event in api.events() if event["action"] == "basket.create"]
    assert "polled with bkt_" in event["after"]["description"]
    assert key.rpartition("_")[2] not in json.dumps(event)


def test_a_batch_has_an_event_for_each_accepted_item(api: Api) -> None:
    reply = api.send("POST", "/run-basket/batch", {"items": [RUN, {"basket_name": "nothing"}, RUN]})

    made = {item["execution_id"] for item in reply.get_json()["items"] if item["status"] == 202}
    assert {event["object"] for event in api.stored()} == made
    assert len(made) == 2


def test_every_other_write_is_recorded_with_its_object(api: Api) -> None:
    run_id = api.send("POST", "/run-basket", RUN).get_json()["execution_id"]
    expected: list[tuple[str, str | None]] = [("execution.submit", run_id)]

    def write(action: str, method: str, path: str, object_id: str | None, body: Any = None) -> Any:
        before = len(api.stored())
        reply = api.send(method, path, body)
        assert reply.status_code < 400, reply.get_json()
        assert len(api.stored()) == before + 1
        expected.append((action, object_id))
        return reply.get_json()

    write("execution.cancel", "POST", f"/executions/{run_id}/cancel", run_id)
    retry = write("execution.retry", "POST", f"/api/v1/executions/{run_id}/retry", run_id)
    bulk = api.send("POST", "/executions/actions", {"action": "erase", "filter": {"tag": "x"}}).get_json()
    expected.append(("execution.bulk_action", bulk["execution_id"]))
    write("execution.erase", "DELETE", f"/executions/{run_id}", run_id)
    write("basket.create", "POST", "/create-basket", "mine", BASKET)
    write("basket.delete", "DELETE", "/baskets/mine", "mine")
    api.services.feed_writer.ensure_started()
    write("consumer.put", "PUT", "/consumers/books", "books")
    cursor = api.send("GET", "/executions/changes").get_json()["next_since"]
    write("consumer.ack", "POST", "/consumers/books/ack", "books", {"cursor": cursor})
    write("consumer.delete", "DELETE", "/consumers/books", "books")
    key_id = write("key.create", "POST", "/keys", None, {"role": "reader", "integrator": "acme"})["id"]
    expected[-1] = ("key.create", key_id)
    successor = write("key.rotate", "POST", f"/keys/{key_id}/rotate", key_id)["id"]
    write("key.revoke", "DELETE", f"/keys/{successor}", successor)

    events = api.events()
    assert [(event["action"], event["object"]) for event in events] == expected
    assert {event["outcome"] for event in events} == {"ok"}
    by_action = {event["action"]: event for event in events}
    assert by_action["execution.bulk_action"]["after"] == {"action": "erase", "filter": {"tag": "x"}}
    assert by_action["execution.retry"]["after"] == {"execution_id": retry["execution_id"]}
    assert by_action["basket.create"]["after"]["name"] == by_action["basket.delete"]["before"]["name"] == "mine"
    assert by_action["key.rotate"]["before"]["id"] == key_id
    assert by_action["key.rotate"]["after"]["id"] == successor
    assert by_action["key.revoke"]["after"]["status"] == "revoked"
    assert by_action["key.create"]["integrator"] == "acme"  # whose key it is, not who made it


def test_every_audited_action_is_tried_here() -> None:
    """A new row must be added to the tests of this module, or to those of its own subject."""
    tried = {
        "execution.submit", "execution.cancel", "execution.retry", "execution.erase", "dead_letter.requeue",
        "dead_letter.dismiss", "execution.bulk_action",
        "basket.create", "basket.delete", "consumer.put", "consumer.ack", "consumer.delete", "key.create",
        "key.rotate", "key.revoke",
    }  # fmt: skip
    elsewhere = {action for action in audited_routes.ACTIONS if action.startswith("integration.")}
    assert set(audited_routes.AUDITED_ROUTES.values()) - elsewhere == tried


@pytest.mark.parametrize(
    ("request_line", "body", "action", "error_code"),
    [
        ("POST /run-basket", {"basket_name": "nothing"}, "execution.submit", "basket_not_found"),
        (f"POST /executions/{NOBODY}/cancel", None, "execution.cancel", "execution_not_found"),
        (f"POST /dead-letters/{NOBODY}/requeue", None, "dead_letter.requeue", "not_found"),
        (f"POST /dead-letters/{NOBODY}/dismiss", None, "dead_letter.dismiss", "not_found"),
        ("DELETE /baskets/nothing", None, "basket.delete", "basket_not_found"),
        ("POST /keys", {"role": "king"}, "key.create", "validation_failed"),
    ],
)
def test_a_refused_write_is_recorded_with_its_code(
    api: Api, request_line: str, body: Any, action: str, error_code: str
) -> None:
    api.send(*request_line.split(), body)

    [event] = api.stored()
    assert (event["action"], event["outcome"], event["error_code"]) == (action, "refused", error_code)


def test_the_same_refusal_again_and_again_is_only_counted(api: Api) -> None:
    for _ in range(REFUSALS_MAX + 3):
        api.send("POST", "/run-basket", {"basket_name": "nothing"})

    assert len(api.stored()) == REFUSALS_MAX


def test_failed_log_ins_are_recorded_with_the_id_of_the_key_and_never_the_key(api: Api) -> None:
    key = api.key(Role.READER, "acme")
    key_id = key.split("_")[1]
    api.send("GET", "/me", key=key)
    api.send("DELETE", f"/keys/{key_id}")

    assert api.client.get("/me").status_code == 401  # no credentials: nothing that failed
    assert api.send("GET", "/me", key=key).status_code == 401
    assert api.send("GET", "/keys", key="bkt_mistyped").status_code == 401

    revoked, mistyped = api.events("&action=auth.*")
    assert (revoked["key_id"], revoked["integrator"], revoked["object"]) == (key_id, "acme", "GET /me")
    assert (mistyped["key_id"], mistyped["integrator"], mistyped["subject"]) == (None, None, "anonymous")
    assert mistyped["address"] == "127.0.0.1"


def test_no_stranger_fills_the_log(api: Api) -> None:
    for _ in range(AUTH_EVENTS_MAX * 3):
        api.send("GET", "/me", key="wrong")

    assert len(api.stored()) == AUTH_EVENTS_MAX


def test_a_missing_right_is_recorded_for_reads_and_writes(api: Api) -> None:
    reader = api.key(Role.READER, "acme")
    for method, path in (("GET", "/keys"), ("POST", "/run-basket")):
        assert api.send(method, path, RUN if method == "POST" else None, key=reader).status_code == 403

    events = api.events("&action=auth.denied")
    assert [event["object"] for event in events] == ["GET /keys", "POST /run-basket"]
    assert {(event["integrator"], event["outcome"], event["error_code"]) for event in events} == {
        ("acme", "refused", "forbidden")
    }


class Death(BaseException):
    """The process dies: no answer is sent, and nothing that would follow is done."""


def die() -> None:
    raise Death


def accept_only(api: Api, rule: dict[str, Any]) -> None:
    """Let MongoDB store new events only if they match ``rule``: any other write of one fails."""
    database = api.services.database.collection("audit_pending").database
    if "audit_pending" not in database.list_collection_names():
        database.create_collection("audit_pending")
    database.command("collMod", "audit_pending", validator=rule)


def test_without_the_audit_log_no_write_begins(api: Api) -> None:
    accept_only(api, {"nothing": True})
    reply = api.send("POST", "/create-basket", BASKET)

    assert (reply.status_code, reply.get_json()["error_code"]) == (503, "unavailable")
    assert api.send("GET", "/baskets/mine").status_code == 404


def test_a_write_whose_process_died_has_an_event_of_unknown_outcome(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fault_injection.ARMED, "api.audit_begun", die)
    with pytest.raises(Death):
        api.send("POST", "/create-basket", BASKET)

    assert api.events() == []  # it may still end
    later = api.services.clock.now() + timedelta(seconds=BEGUN_MAX_S + 1)
    assert api.services.audit_sequencer.sequence(later, 1)
    [event] = api.events()
    assert (event["action"], event["outcome"]) == ("basket.create", "unknown")


def test_an_erasure_that_one_store_has_not_done_is_not_told_as_one_that_changed_nothing(api: Api) -> None:
    run_id = api.send("POST", "/run-basket", RUN).get_json()["execution_id"]
    assert api.send("POST", f"/executions/{run_id}/cancel").status_code == 200
    api.services.redis.set(LOG_STREAM_KEY, "no stream")  # as if Redis went away in the middle
    reply = api.send("DELETE", f"/executions/{run_id}")

    assert (reply.status_code, reply.get_json()["error_code"]) == (503, "outcome_unknown")
    assert "erased_at" in api.send("GET", f"/executions/{run_id}").get_json()
    [event] = api.events("&action=execution.erase")
    assert (event["outcome"], event["error_code"]) == ("unknown", "outcome_unknown")


def test_a_run_whose_process_died_before_its_answer_has_its_event(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fault_injection.ARMED, "api.inserted", die)
    with pytest.raises(Death):
        api.send("POST", "/run-basket", RUN)

    [event] = api.events()
    assert api.services.store.load("public", event["object"]) is not None


def test_an_end_that_cannot_be_stored_is_stored_later_and_the_answer_says_what_was_done(api: Api) -> None:
    accept_only(api, {"outcome": None})  # events begin, and none ends
    assert api.send("POST", "/run-basket", {"basket_name": "nothing"}).status_code == 404
    assert api.send("POST", "/create-basket", BASKET).status_code == 201
    assert api.events() == []

    accept_only(api, {})
    wait_until(lambda: len(api.events()) == 2, 10, "both events are stored")
    assert {event["outcome"] for event in api.events()} == {"ok", "refused"}


def test_no_event_holds_a_secret(api: Api) -> None:
    secret = "swordfish-0815"
    made = api.send("POST", "/keys", {"role": "reader", "integrator": "acme"}).get_json()
    rotated = api.send("POST", f"/keys/{made['id']}/rotate").get_json()
    keys = [made["key"], rotated["key"], api.key(Role.OPERATOR, "acme")]
    api.send("DELETE", f"/keys/{rotated['key']}")
    api.send("DELETE", f"/baskets/{rotated['key']}")
    api.send("PUT", f"/consumers/{rotated['key']}")
    for key in (*keys, f"{keys[0]}x", f"{secret}.{secret}.{secret}"):
        api.send("POST", "/run-agent", {"agent_name": "text_to_json", "input_data": {"text": secret}}, key=key)
        api.send("GET", f"/me?key={key}", key=key)
        api.send("GET", "/audit", key=key)

    stored = json.dumps([*api.stored(), *api.events()], default=str)
    assert len(api.events()) > 10
    assert secret not in stored
    assert not any(key[20:40] in stored for key in [*keys, *api.keys.values()])


def test_with_authentication_off_there_is_no_audit(make_api: Callable[..., Api]) -> None:
    api = make_api(auth="off")
    api.client.post("/run-basket", json=RUN)
    api.client.post("/create-basket", json=BASKET)

    assert api.stored() == []
    assert api.client.get("/audit").get_json()["events"] == []


def test_reads_of_payloads_are_recorded_once_a_minute_if_they_are_to_be(make_api: Callable[..., Api]) -> None:
    api = make_api(audit_reads=True)
    run_id = api.send("POST", "/run-basket", RUN).get_json()["execution_id"]
    other = api.send("POST", "/run-basket", RUN).get_json()["execution_id"]
    for _ in range(3):
        api.send("GET", f"/execution-logs/{run_id}")
    api.send("POST", "/executions/poll", {"items": [{"execution_id": other}], "view": "full"})
    api.send("GET", f"/execution-logs/{run_id}", key=api.key(Role.READER, "public"))  # sees no payloads

    def reads() -> list[Any]:
        return [event["object"] for event in api.events("&action=execution.read_payload")]

    wait_until(lambda: len(reads()) >= 2, 10, "both reads are recorded")
    assert sorted(reads()) == sorted([run_id, other])


def test_reads_are_not_recorded_by_default(api: Api) -> None:
    run_id = api.send("POST", "/run-basket", RUN).get_json()["execution_id"]
    api.send("GET", f"/execution-logs/{run_id}")

    assert [event["action"] for event in api.events()] == ["execution.submit"]
