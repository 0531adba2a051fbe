"""The audit log has each write on an integration: whose it is, what changed, and never the key."""

from __future__ import annotations

import json
from typing import Any

from api.audit.audited_routes import ACTIONS
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from tests.integration.api.integrations.conftest import REQUEST, Api


def events_of(api: Api, integration_id: str) -> list[dict[str, Any]]:
    events = api.send("GET", "/audit?action=integration.*&limit=100").get_json()["events"]
    return [event for event in events if event["object"] == integration_id]


def test_each_write_on_an_integration_is_an_event_with_what_changed_and_without_the_key(api: Api) -> None:
    integration_id = api.registered()
    path = f"/integrations/{integration_id}"
    api.send("POST", f"{path}/review")
    api.send("POST", f"{path}/request-changes", {"comment": "volume?"})
    api.send("PUT", path, REQUEST | {"volume": 7})
    api.send("POST", f"{path}/review")
    api.send("POST", f"{path}/approve")
    assert api.send("POST", f"{path}/activate").status_code == 409
    api.send("PUT", f"{path}/checklist", dict.fromkeys(CHECKLIST_ITEMS, True))
    activated = api.send("POST", f"{path}/activate").get_json()
    api.send("POST", f"{path}/suspend")

    events = events_of(api, integration_id)
    assert {event["action"] for event in events} == {name for name in ACTIONS if name.startswith("integration.")}
    assert [(event["action"], event["outcome"]) for event in events if event["outcome"] != "ok"] == [
        ("integration.activate", "refused")
    ]
    assert {event["integrator"] for event in events} == {"acme"}
    last = {event["action"]: event for event in events}
    assert last["integration.request"]["after"]["volume"] == 100
    assert (last["integration.update"]["before"]["volume"], last["integration.update"]["after"]["volume"]) == (100, 7)
    assert last["integration.approve"]["before"]["status"] == "in_review"
    assert last["integration.approve"]["after"]["status"] == "approved"
    assert last["integration.checklist"]["before"]["done"] == []
    assert last["integration.checklist"]["after"] == {"percentage": 100, "done": [*CHECKLIST_ITEMS]}
    assert last["integration.activate"]["after"]["key_id"] == activated["key_id"]
    assert activated["key"][20:40] not in json.dumps(events)


def test_an_integration_that_is_not_there_is_a_refused_event(api: Api) -> None:
    for method, path in (("POST", "review"), ("PUT", "checklist")):
        assert api.send(method, f"/integrations/nothing/{path}", {}).status_code in {400, 404}

    events = events_of(api, "nothing")
    assert [event["outcome"] for event in events] == ["refused", "refused"]
