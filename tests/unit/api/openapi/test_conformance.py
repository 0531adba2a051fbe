"""The check of replies reports what the flat schemas of docs/openapi.json cannot express."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.openapi_conformance import DOCUMENT, rule_faults

RECORDED = json.loads(DOCUMENT.read_bytes())["paths"]
POLLS = RECORDED["/executions/{execution_id}"]["get"]["responses"]["200"]["content"]["application/json"]["examples"]
DONE: dict[str, Any] = POLLS["completed"]["value"]
LIVE = DONE | {
    "status": "running", "done": False, "finished_at": None, "result": None, "poll_after_ms": 250,
}  # fmt: skip
BASKET = {"name": "daily", "basket_name": "daily", "execution_strategy": "sequential", "agents": ["echo"]}


@pytest.mark.parametrize("body", [DONE, LIVE, {"executions": [DONE, LIVE]}, BASKET, {"basket": BASKET}, [], {}])
def test_a_right_reply_breaks_no_rule(body: Any) -> None:
    assert not list(rule_faults(body))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "running"},
        {"poll_after_ms": 250},
        {"finished_at": None},
        {"waiting_for": {"reason": "queue", "position": None, "eta_ms": None}},
        {"current_step": {"step": "a", "agent": "echo", "attempt": 1}},
    ],
    ids=str,
)
def test_a_final_run_with_a_field_of_a_live_one_is_reported(change: dict[str, Any]) -> None:
    for body in (DONE | change, {"executions": [DONE, DONE | change]}, {"changed": [DONE | change]}):
        assert len(list(rule_faults(body))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"status": "completed"},
        {"finished_at": "2026-11-21T12:00:00.000Z"},
        {"result": {}},
        {"error": {"error_code": "timeout"}},
    ],
    ids=str,
)
def test_a_live_run_with_a_field_of_a_final_one_is_reported(change: dict[str, Any]) -> None:
    assert len(list(rule_faults(LIVE | change))) == 1


def test_a_live_run_without_a_hint_is_reported_unless_it_is_a_part() -> None:
    body = {name: value for name, value in LIVE.items() if name != "poll_after_ms"}
    assert len(list(rule_faults(body))) == 1
    assert not list(rule_faults(body, whole=False))


@pytest.mark.parametrize("basket", [BASKET | {"steps": []}, {**BASKET, "agents": None} | {"steps": [{}]}], ids=str)
def test_a_basket_with_both_forms_is_reported(basket: dict[str, Any]) -> None:
    assert len(list(rule_faults({"baskets": [BASKET, basket]}))) == 1
    assert (
        len(list(rule_faults({"basket": {name: basket[name] for name in basket if name not in {"agents", "steps"}}})))
        == 1
    )
