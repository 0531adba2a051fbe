"""Batches: split by count and by bytes, one bad item alone, and items that are sent again with the same keys."""

from __future__ import annotations

from typing import Any

import pytest

from bucket_client import BucketWarning, Execution, Invalid, NotFound, Overloaded, ServerFault, Unavailable
from bucket_client.batches import BYTES_MAX, item_of_body, split, submit_many
from bucket_client.effects import Reply
from tests.unit.client.flow_player import NO_REPLY, FlowPlayer, reply

ITEM = {"basket_name": "working_test", "input_data": {}}


def accepted(number: int) -> dict[str, Any]:
    return {"status": 202, "execution_status": "queued", "execution_id": f"id-{number}", "done": False, "rev": 1}


def refused(status: int, code: str) -> dict[str, Any]:
    return {"status": status, "error_code": code, "detail": f"about {code}"}


def sizes(bodies: list[dict[str, Any]]) -> list[int]:
    return [len(batch) for batch in split(map(item_of_body, bodies))]


def outcomes(*items: dict[str, Any]) -> Reply:
    return reply(202, {"items": list(items), "accepted": 0, "rejected": 0})


def test_a_batch_has_at_most_500_items() -> None:
    assert sizes([ITEM] * 1001) == [500, 500, 1]


def test_a_batch_has_at_most_a_mebibyte_with_all_that_stands_around() -> None:
    items = [ITEM | {"metadata": {"text": "ä" * size}} for size in [100_000] * 12]
    batches = list(split(map(item_of_body, items)))
    bodies = [
        b'{"items":[' + b",".join(item.encoded for item in batch if isinstance(item.encoded, bytes)) + b"]}"
        for batch in batches
    ]
    assert sum(map(len, batches)) == 12
    assert all(len(body) <= BYTES_MAX for body in bodies)
    assert len(batches) == 3  # 200 kB each: five fit


def test_an_item_that_is_too_large_stands_alone() -> None:
    large = ITEM | {"metadata": {"text": "a" * (BYTES_MAX + 1)}}
    assert sizes([ITEM, large, ITEM]) == [1, 1, 1]


def test_outcomes_come_in_order_with_a_bad_item_as_its_error() -> None:
    player = FlowPlayer([outcomes(accepted(0), refused(404, "basket_not_found"), accepted(2))])
    first, bad, unsendable, last = player.play(
        submit_many(player.settings(), [ITEM, ITEM, ITEM | {"metadata": {1}}, ITEM])
    )
    assert isinstance(first, Execution)
    assert (first.execution_id, first.status) == ("id-0", "queued")
    assert isinstance(bad, NotFound)
    assert bad.error_code == "basket_not_found"
    assert isinstance(unsendable, Invalid)
    assert last.execution_id == "id-2"


def test_items_that_could_not_be_taken_are_sent_again_with_their_keys() -> None:
    player = FlowPlayer([outcomes(accepted(0), refused(503, "overloaded")), outcomes(accepted(1))])
    result = player.play(submit_many(player.settings(), [ITEM, ITEM]))
    assert [execution.execution_id for execution in result] == ["id-0", "id-1"]
    first, second = player.bodies()
    assert second["items"] == first["items"][1:]
    assert first["items"][0]["idempotency_key"] != first["items"][1]["idempotency_key"]


def test_an_item_that_could_not_be_taken_at_all_is_an_error_in_its_place() -> None:
    player = FlowPlayer([outcomes(refused(503, "overloaded"))] * 3)
    [outcome] = player.play(submit_many(player.settings(retries=2), [ITEM]))
    assert isinstance(outcome, Overloaded)
    assert len(player.requests) == 3


def test_a_key_of_the_callers_own_is_kept() -> None:
    player = FlowPlayer([outcomes(accepted(0))])
    player.play(submit_many(player.settings(), [ITEM | {"idempotency_key": "order-17"}]))
    assert next(iter(player.bodies()))["items"][0]["idempotency_key"] == "order-17"


def test_a_batch_that_is_refused_whole_is_halved_until_the_bad_item_stands_alone() -> None:
    whole = reply(400, {"error_code": "invalid_json", "detail": "a lone surrogate"})
    player = FlowPlayer([whole, outcomes(accepted(0), accepted(1)), whole, outcomes(accepted(2)), whole])
    result = player.play(submit_many(player.settings(), [ITEM] * 4))
    assert [type(outcome) for outcome in result] == [Execution, Execution, Execution, Invalid]


def test_a_warning_of_an_item_is_raised() -> None:
    player = FlowPlayer([outcomes(accepted(0) | {"warnings": ["unknown field 'inputz' was ignored"]})])
    with pytest.warns(UserWarning, match="inputz"):
        player.play(submit_many(player.settings(), [ITEM]))


def test_an_outage_in_a_later_batch_loses_no_outcome_and_each_item_left_has_its_key() -> None:
    player = FlowPlayer([outcomes(*(accepted(number) for number in range(500))), *[NO_REPLY] * 2])
    items = [ITEM | {"idempotency_key": f"key-{number}"} for number in range(1300)]
    result = player.play(submit_many(player.settings(retries=1), items))
    assert [type(outcome) for outcome in result] == [Execution] * 500 + [Unavailable] * 800
    assert [outcome.idempotency_key for outcome in result[500:]] == [f"key-{number}" for number in range(500, 1300)]
    assert len(player.requests) == 3, "what follows an outage is not sent"


@pytest.mark.parametrize("failed", [reply(500, {"detail": "a fault"}), reply(202, {"items": []}), reply(200, [])])
def test_a_fault_of_the_server_is_the_outcome_of_each_item(failed: Reply) -> None:
    player = FlowPlayer([failed])
    result = player.play(submit_many(player.settings(retries=0), [ITEM, ITEM]))
    assert [type(outcome) for outcome in result] == [ServerFault, ServerFault]
    assert result[0].idempotency_key != result[1].idempotency_key


def test_an_item_whose_key_is_none_gets_one() -> None:
    player = FlowPlayer([outcomes(accepted(0))])
    player.play(submit_many(player.settings(), [ITEM | {"idempotency_key": None}]))
    assert next(iter(player.bodies()))["items"][0]["idempotency_key"]


def test_a_retry_after_of_a_batch_is_obeyed() -> None:
    busy = reply(202, {"items": [refused(503, "overloaded")]}, retry_after="9")
    player = FlowPlayer([busy, outcomes(accepted(0))])
    player.play(submit_many(player.settings(), [ITEM]))
    assert player.sleeps == [9]


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_still_names_its_run() -> None:
    player = FlowPlayer([outcomes(accepted(0) | {"warnings": ["unknown field"]}, accepted(1))])
    with pytest.raises(BucketWarning) as caught:
        player.play(submit_many(player.settings(), [ITEM, ITEM]))
    assert caught.value.execution is not None
    assert caught.value.execution.execution_id == "id-0"
