"""The register of integrations through the application, with a real MongoDB and keys required."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.auth.integration_states import IntegrationStates
from shared import fault_injection
from shared.domain.access.caller import Caller, Role
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from shared.errors import IntegrationInactive
from tests.integration.api.integrations.conftest import REQUEST, Api
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    fault_injection.ARMED.clear()


def test_an_integration_goes_from_its_request_to_a_key_that_submits(api: Api) -> None:
    created = api.send("POST", "/integrations", REQUEST | {"mapping_url": "https://wiki.example.com/acme"})
    assert created.status_code == 201
    body = created.get_json()
    path = f"/integrations/{body['id']}"
    assert (body["status"], body["percentage"], body["key_id"]) == ("requested", 0, None)
    assert api.send("POST", f"{path}/review", {"comment": "now"}).get_json()["status"] == "in_review"
    no_reason = api.send("POST", f"{path}/request-changes", {})
    assert (no_reason.status_code, no_reason.get_json()["details"][0]["pointer"]) == (400, "/comment")
    assert (
        api.send("POST", f"{path}/request-changes", {"comment": "volume?"}).get_json()["status"] == "changes_requested"
    )
    corrected = api.send("PUT", path, REQUEST | {"volume": {"runs_per_day": 7}}).get_json()
    assert (corrected["status"], corrected["volume"]) == ("requested", {"runs_per_day": 7})
    assert api.send("POST", f"{path}/review").status_code == 200
    assert api.send("POST", f"{path}/approve").get_json()["status"] == "approved"

    incomplete = api.send("POST", f"{path}/activate")
    assert (incomplete.status_code, incomplete.get_json()["error_code"]) == (409, "integration_incomplete")
    assert "poll_after_obeyed" in incomplete.get_json()["detail"]
    ticked = api.send("PUT", f"{path}/checklist", dict.fromkeys(CHECKLIST_ITEMS, True)).get_json()
    compliance = api.send("GET", f"{path}/compliance").get_json()
    assert compliance == ticked
    assert compliance["percentage"] == 100
    assert {item["checklist"] for item in compliance["items"]} == {"directionality", "compliance"}
    assert all(item["by"].startswith("key:") and item["at"] for item in compliance["items"])

    activated = api.send("POST", f"{path}/activate").get_json()
    key = activated["key"]
    me = api.send("GET", "/me", key=key).get_json()
    assert (me["role"], me["integrator"], me["baskets"]) == ("integrator", "acme", ["working_test"])
    assert api.send("GET", f"/keys/{activated['key_id']}").get_json()["integration"] == body["id"]
    assert api.submit(key).status_code == 202
    shown = api.send("GET", path)
    assert key not in shown.text
    actions = [move["action"] for move in shown.get_json()["history"]]
    assert actions == ["request", "review", "request_changes", "correct", "review", "approve", "activate"]


def test_an_illegal_move_says_what_comes_first(api: Api) -> None:
    path = f"/integrations/{api.registered()}"
    for action in ("approve", "activate", "suspend"):
        refused = api.send("POST", f"{path}/{action}")
        assert (refused.status_code, refused.get_json()["error_code"]) == (409, "integration_state")
        assert "comes after review" in refused.get_json()["detail"]
    api.send("POST", f"{path}/review")
    refused = api.send("PUT", path, REQUEST)
    assert (refused.status_code, refused.get_json()["error_code"]) == (409, "integration_state")


@pytest.mark.parametrize(
    ("change", "pointer", "hint"),
    [
        ({"agents": ["financial_cordinator"]}, "/agents/0", "financial_coordinator"),
        ({"baskets": ["working_tests"]}, "/baskets/0", "working_test"),
        ({"name": "a b"}, "/name", "letters"),
        ({"name": "public"}, "/name", "reserved"),
        ({"mapping_url": "file:///etc"}, "/mapping_url", "web address"),
        ({"volume": True}, "/volume", "runs a day"),
        ({"use_case": " "}, "/use_case", "text"),
        ({"contacts": "x"}, "/contacts", "contact"),
    ],
)
def test_a_faulty_request_is_refused_with_the_place(api: Api, change: dict[str, Any], pointer: str, hint: str) -> None:
    correction = f"/integrations/{api.registered(name='other')}"
    for method, path in (("POST", "/integrations"), ("PUT", correction)):
        refused = api.send(method, path, REQUEST | change)
        assert (refused.status_code, refused.get_json()["error_code"]) == (400, "validation_failed")
        [fault] = refused.get_json()["details"]
        assert (fault["pointer"], hint in fault["message"]) == (pointer, True), fault


def test_an_integration_may_name_a_basket_of_its_own_and_none_of_others(api: Api) -> None:
    author = api.key_of(Role.AUTHOR, integrator="acme")
    created = api.send("POST", "/create-basket", {"name": "own", "agents": ["financial_coordinator"]}, key=author)
    assert created.status_code == 201, created.json
    assert api.registered(baskets=["own"])
    refused = api.send("POST", "/integrations", REQUEST | {"name": "other", "baskets": ["own"]})
    assert (refused.status_code, refused.get_json()["details"][0]["pointer"]) == (400, "/baskets/0")


def test_an_unknown_item_is_refused_with_the_nearest_and_ticks_nothing(api: Api) -> None:
    path = f"/integrations/{api.registered()}"
    refused = api.send("PUT", f"{path}/checklist", {"data_minimised": True, "poll_after_obeid": True})
    assert refused.status_code == 400
    assert refused.get_json()["details"] == [
        {"pointer": "/poll_after_obeid", "message": "is no item of a checklist; did you mean poll_after_obeyed?"}
    ]
    assert api.send("PUT", f"{path}/checklist", {"data_minimised": "yes"}).status_code == 400
    assert api.send("GET", f"{path}/compliance").get_json()["percentage"] == 0


def test_a_name_is_given_once_and_what_is_unknown_is_404(api: Api) -> None:
    api.registered()
    taken = api.send("POST", "/integrations", REQUEST)
    assert (taken.status_code, taken.get_json()["error_code"]) == (409, "integration_exists")
    other = api.registered(name="other")
    assert api.send("PUT", f"/integrations/{other}", REQUEST).status_code == 409
    missing = api.send("POST", "/integrations/itg_0000000000000000/review")
    assert (missing.status_code, missing.get_json()["error_code"]) == (404, "integration_not_found")
    unknown = api.send("POST", "/keys", {"role": "integrator", "integrator": "acme", "integration": "itg_none"})
    assert (unknown.status_code, unknown.get_json()["details"][0]["pointer"]) == (400, "/integration")
    operator = api.key_of(Role.OPERATOR)
    assert api.send("GET", "/integrations", key=operator).status_code == 403


def test_the_list_has_pages_and_a_filter(api: Api) -> None:
    ids = [api.registered(name=name) for name in ("c", "a", "b")]
    api.send("POST", f"/integrations/{ids[1]}/review")
    page = api.send("GET", "/integrations?limit=2").get_json()
    assert [row["name"] for row in page["integrations"]] == ["a", "b"]
    rest = api.send("GET", f"/integrations?limit=2&cursor={page['next_cursor']}").get_json()
    assert ([row["name"] for row in rest["integrations"]], rest["next_cursor"]) == (["c"], None)
    in_review = api.send("GET", "/integrations?status=in_review").get_json()["integrations"]
    assert [row["name"] for row in in_review] == ["a"]
    assert api.send("GET", "/integrations?cursor=nonsense").get_json()["error_code"] == "cursor_invalid"


def test_a_suspended_integration_polls_but_starts_nothing_in_any_process(
    api: Api, start_api: Callable[..., Api]
) -> None:
    other = start_api()
    integration_id, key = api.activated()
    run_id = other.submit(key).get_json()["execution_id"]
    assert "key" not in api.send("POST", f"/integrations/{integration_id}/suspend", {"comment": "leak"}).get_json()

    refused = api.submit(key)  # at once in the process that was told
    assert (refused.status_code, refused.get_json()["error_code"]) == (403, "integration_inactive")
    wait_until(lambda: other.submit(key).status_code == 403, 2, "the other process refuses the key too")
    assert other.send("POST", "/run-agent", {"agent_name": "financial_coordinator"}, key=key).status_code == 403
    assert other.send("POST", "/run-basket/batch", {"items": [{}]}, key=key).status_code == 403
    assert other.send("POST", f"/executions/{run_id}/retry", {}, key=key).status_code == 403
    for process in (api, other):
        assert process.send("GET", f"/execution-logs/{run_id}", key=key).status_code == 200
    assert other.send("POST", f"/executions/{run_id}/cancel", {}, key=key).status_code in (200, 202)

    again = api.send("POST", f"/integrations/{integration_id}/activate").get_json()
    assert (again["status"], "key" in again) == ("active", False)
    wait_until(lambda: other.submit(key).status_code == 202, 2, "the other process takes it again")


def test_where_integrations_are_required_a_plain_key_only_polls(start_api: Callable[..., Api]) -> None:
    api = start_api(integrations="required")
    integration_id, key = api.activated()
    run_id = api.submit(key).get_json()["execution_id"]
    plain = api.key_of(Role.INTEGRATOR)
    refused = api.submit(plain)
    assert (refused.status_code, refused.get_json()["error_code"]) == (403, "integration_inactive")
    assert "belongs to none" in refused.get_json()["detail"]
    assert api.send("GET", f"/execution-logs/{run_id}", key=plain).status_code == 200
    assert api.submit(api.key_of(Role.INTEGRATOR, integration=integration_id)).status_code == 202
    not_yet = api.key_of(Role.INTEGRATOR, integrator="later", integration=api.approved(name="later"))
    assert "is approved" in api.submit(not_yet).get_json()["detail"]


def test_a_key_names_no_integration_of_another_integrator(api: Api) -> None:
    body = {"role": "integrator", "integrator": "zenith", "integration": api.approved()}
    refused = api.send("POST", "/keys", body)
    assert refused.status_code == 400
    assert "and this key is for zenith" in refused.get_json()["detail"]
    owner = api.send("GET", f"/integrations/{body['integration']}").get_json()["name"]
    assert api.send("POST", "/keys", body | {"integrator": owner}).status_code == 201


def test_a_new_key_may_submit_in_every_process_at_once(api: Api, start_api: Callable[..., Api]) -> None:
    other = start_api()
    integration_id = api.approved()  # so this process knows it as approved
    key = other.send("POST", f"/integrations/{integration_id}/activate").get_json()["key"]
    assert [process.submit(key).status_code for process in (api, other)] == [202, 202]


def test_by_default_a_plain_key_submits(api: Api) -> None:
    assert api.submit(api.key_of(Role.INTEGRATOR)).status_code == 202


def test_two_admins_who_activate_at_once_get_one_key(api: Api) -> None:
    path = f"/integrations/{api.approved()}/activate"
    with ThreadPoolExecutor(4) as admins:
        replies = list(admins.map(lambda _: api.send("POST", path), range(4)))
    assert sorted(reply.status_code for reply in replies) == [200, 409, 409, 409]
    [activated] = [reply.get_json() for reply in replies if reply.status_code == 200]
    assert api.submit(activated["key"]).status_code == 202
    valid = [key["id"] for key in api.send("GET", "/keys").get_json()["keys"] if _is_valid_of(key, activated["id"])]
    assert valid == [activated["key_id"]]


def test_a_second_admin_decides_on_what_the_first_has_written(api: Api) -> None:
    """The first activation is overtaken after its key was stored: it must not overwrite what came in between."""
    integration_id = api.approved()
    path = f"/integrations/{integration_id}"
    fault_injection.ARMED["api.activation_key_stored"] = lambda: (
        fault_injection.ARMED.clear(),
        api.send("PUT", f"{path}/checklist", {"data_minimised": False}),
    )[0]
    refused = api.send("POST", f"{path}/activate")
    assert (refused.status_code, refused.get_json()["error_code"]) == (409, "integration_state")
    assert api.send("GET", path).get_json()["status"] == "approved"
    assert not [key for key in api.send("GET", "/keys").get_json()["keys"] if _is_valid_of(key, integration_id)]


def test_a_death_between_key_and_status_leaves_no_usable_key_and_can_be_repeated(api: Api) -> None:
    integration_id = api.approved()
    path = f"/integrations/{integration_id}"

    def die() -> None:
        fault_injection.ARMED.clear()
        raise SystemExit

    fault_injection.ARMED["api.activation_key_stored"] = die
    with pytest.raises(SystemExit):
        api.send("POST", f"{path}/activate")
    [orphan] = [key for key in api.send("GET", "/keys").get_json()["keys"] if _is_valid_of(key, integration_id)]
    assert api.send("GET", path).get_json()["status"] == "approved"

    activated = api.send("POST", f"{path}/activate").get_json()
    assert api.submit(activated["key"]).status_code == 202
    assert api.send("GET", f"/keys/{orphan['id']}").get_json()["status"] == "revoked"
    valid = [key["id"] for key in api.send("GET", "/keys").get_json()["keys"] if _is_valid_of(key, integration_id)]
    assert valid == [activated["key_id"]]


def _is_valid_of(key: dict[str, Any], integration_id: str) -> bool:
    return key["integration"] == integration_id and key["status"] == "active"


@pytest.mark.parametrize(
    "changes",
    [
        {"$unset": {"ticks": ""}},
        {"$unset": {"history": ""}},
        {"$set": {"volume": b"zz"}},
        {"$set": {"volume": 5}},
        {"$set": {"status": "weird"}},
        {"$set": {"updated_at": "x"}},
        {"$set": {"history": [5]}},
        {"$set": {"name": 5}},
        {"$set": {"ticks": ["x"]}},
    ],
)
def test_one_that_cannot_be_read_hides_no_other_and_may_not_submit(api: Api, changes: dict[str, Any]) -> None:
    ids = [api.registered(name=name) for name in ("a", "c", "d")]
    broken, _ = api.activated(name="b")
    api.services.database.collection("integrations").update_one({"_id": broken}, changes)

    first = api.send("GET", "/integrations?limit=2").get_json()
    second = api.send("GET", f"/integrations?limit=2&cursor={first['next_cursor']}").get_json()
    assert [each["id"] for each in first["integrations"]] == ids[:2]
    assert ([each["id"] for each in second["integrations"]], second["next_cursor"]) == (ids[2:], None)
    replies = [api.send("POST", f"/integrations/{broken}/suspend"), api.send("GET", f"/integrations/{broken}"),
               api.send("GET", f"/integrations/{broken}/compliance")]  # fmt: skip
    assert {(reply.status_code, reply.get_json()["error_code"]) for reply in replies} == {
        (404, "integration_not_found")
    }
    restarted = IntegrationStates(api.services.integrations, is_required=False)
    caller = Caller(Role.INTEGRATOR, "b", "key:x", integration=broken)
    with pytest.raises(IntegrationInactive):
        restarted.check_may_start_runs(caller, is_submit=True)
