"""Own baskets beside the shared ones: who sees, runs, makes and deletes which; and what a key with a list may run."""

from __future__ import annotations

from shared.domain.access.caller import Role
from shared.domain.execution import OWN_BASKET
from tests.callers import ACME, ZENITH, Callers

AGENTS = {"agents": ["cashflow_analyzer"]}
INPUT = {"transactions": []}


def test_an_own_basket_runs_before_a_shared_one_of_the_same_name(callers: Callers) -> None:
    author = callers.new(Role.AUTHOR, ACME)
    assert author.post("/create-basket", {"name": "close", **AGENTS}).json["basket"]["shared"] is False
    made = callers.admin.post("/create-basket", {"name": "close", "agents": ["cashflow_analyzer", "goal_recommender"]})
    assert (made.status_code, made.json["basket"]["shared"]) == (201, True)
    assert list(callers.load(callers.acme.submit("close")).steps) == ["cashflow_analyzer"]
    assert len(callers.load(callers.zenith.submit("close")).steps) == 2
    assert [callers.acme.get("/baskets/close").json["shared"], callers.zenith.get("/baskets/close").json["shared"]] == [
        False,
        True,
    ]
    listed = callers.acme.get("/baskets").json["baskets"]
    assert {each["name"]: each["shared"] for each in listed} == {
        "close": False,
        **{each["name"]: True for each in listed if each["name"] != "close"},
    }
    of_admin = [each for each in callers.admin.get("/baskets").json["baskets"] if each["name"] == "close"]
    assert [(each["integrator"], each["shared"]) for each in of_admin] == [(ACME, False), ("public", True)]


def test_who_makes_and_deletes_which(callers: Callers) -> None:
    author, other = callers.new(Role.AUTHOR, ACME), callers.new(Role.AUTHOR, ZENITH)
    for caller in (author, other):
        assert caller.post("/create-basket", {"name": "mine", **AGENTS}).status_code == 201
        assert caller.post("/create-basket", {"name": "mine", **AGENTS}).status_code == 409
        assert caller.post("/create-basket", {"name": "working_test", **AGENTS}).status_code == 409, "a shared one"
    refused = author.call("DELETE", "/baskets/working_test")
    assert (refused.status_code, "the role admin" in refused.json["detail"]) == (403, True)
    assert author.call("DELETE", "/baskets/mine").status_code == 200
    assert other.get("/baskets/mine").status_code == 200
    of_public = callers.new(Role.AUTHOR, "public")
    assert of_public.post("/create-basket", {"name": "for_all", **AGENTS}).status_code == 403
    assert of_public.call("DELETE", "/baskets/working_test").status_code == 403
    assert callers.admin.call("DELETE", f"/baskets/mine?integrator={ZENITH}").status_code == 200
    assert callers.admin.call("DELETE", "/baskets/working_test").status_code == 200
    assert author.get("/baskets/working_test").status_code == 404


def test_metrics_do_not_name_an_own_basket(callers: Callers) -> None:
    callers.new(Role.AUTHOR, ACME).post("/create-basket", {"name": "takeover-of-zenith", **AGENTS})
    run = callers.completed(callers.acme, "takeover-of-zenith")
    assert callers.load(run).kind == OWN_BASKET
    for caller in (callers.zenith, callers.acme, callers.admin):
        assert "takeover" not in caller.get("/metrics").get_data(as_text=True)
    assert f'basket="{OWN_BASKET}"' in callers.admin.get("/metrics").get_data(as_text=True)


def test_a_key_with_a_list_runs_only_what_is_on_it(callers: Callers) -> None:
    listed = callers.new(Role.OPERATOR, ACME, baskets=("working_test",))
    callers.new(Role.AUTHOR, ACME).post("/create-basket", {"name": "other", **AGENTS})
    agent = callers.acme.post("/run-agent", {"agent_name": "cashflow_analyzer", "input_data": INPUT})
    inline = callers.acme.post("/run-basket", {"config": AGENTS, "input_data": INPUT})
    failed = [callers.failed(callers.acme, basket="other"), *(reply.json["execution_id"] for reply in (agent, inline))]
    for run in failed[1:]:
        callers.finish(run, fails=True)
    refusals = {
        "'other'": [
            listed.post("/run-basket", {"basket_name": "other"}),
            listed.post(f"/executions/{failed[0]}/retry"),
            listed.post(f"/dead-letters/{failed[0]}/requeue"),
        ],
        "inline": [listed.post("/run-basket", {"config": AGENTS})],
        "an agent alone": [listed.post("/run-agent", {"agent_name": "cashflow_analyzer", "input_data": INPUT})],
        "without a basket": [listed.post(f"/executions/{run}/retry") for run in failed[1:]],
    }
    for text, replies in refusals.items():
        for reply in replies:
            assert (reply.status_code, reply.json["error_code"]) == (403, "forbidden"), reply.text
            assert text in reply.json["detail"]
            assert "this key has a list" in reply.json["detail"]
    allowed = callers.failed(listed)
    assert listed.post(f"/executions/{allowed}/retry").status_code == 202
    items = [{"basket_name": "working_test"}, {"basket_name": "other"}, {"config": AGENTS}]
    batch = listed.post("/run-basket/batch", {"items": items})
    assert [item["status"] for item in batch.json["items"]] == [202, 403, 403]
    assert callers.acme.post("/run-basket/batch", {"items": items}).json["accepted"] == 3
