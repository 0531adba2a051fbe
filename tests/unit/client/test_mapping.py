"""A map: how much is under way, what a state file spares, and what stops it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bucket_client import BucketError, Forbidden, Invalid, MapResult, NotFound, Overloaded, Unavailable
from bucket_client.effects import Reply, Request
from bucket_client.mapping import map_inputs
from tests.unit.client.flow_player import NO_REPLY, FlowPlayer, reply


class ScriptedServer(FlowPlayer):
    """Accepts every item, and says of each run that it is done when it is polled for the ``polls_needed``-th time."""

    polls_needed = 1
    refuse_status: int | None = None
    forgets = False

    def __init__(self) -> None:
        super().__init__()
        self.polls: dict[str, int] = {}
        self.slow: set[int] = set()
        self.most_under_way = 0

    def _outcome_of(self, effect: Any) -> Any:
        if not isinstance(effect, Request):
            return super()._outcome_of(effect)
        self.requests.append(effect)
        items = json.loads(effect.body or b"")["items"]
        return self._submit(items) if effect.path.endswith("batch") else self._poll(items)

    def _submit(self, items: list[dict[str, Any]]) -> Reply:
        if self.refuse_status:
            problem = {"status": self.refuse_status, "error_code": "overloaded", "detail": "too much"}
            return reply(202, {"items": [problem for _ in items]})
        ids = [item["idempotency_key"] for item in items]
        self.polls |= dict.fromkeys(ids, 0)
        self.most_under_way = max(self.most_under_way, len(self.polls))
        accepted = {"status": 202, "execution_status": "queued", "done": False, "rev": 1, "poll_after_ms": 300}
        return reply(202, {"items": [accepted | {"execution_id": name} for name in ids]})

    def _poll(self, items: list[dict[str, Any]]) -> Reply:
        ids = [item["execution_id"] for item in items]
        if self.forgets:
            return reply(200, {"changed": [], "not_found": ids, "poll_after_ms": None})
        is_fetch = "rev" not in items[0]
        for name in ids:
            self.polls[name] += not is_fetch
        done = [name for name in ids if self.polls[name] >= self.polls_needed and self._number(name) not in self.slow]
        if is_fetch:
            self.polls = {name: count for name, count in self.polls.items() if name not in done}
        views = [{"execution_id": name, "status": "completed", "done": True, "rev": 3} for name in done]
        return reply(200, {"changed": views, "not_found": [], "poll_after_ms": 400})

    @staticmethod
    def _number(name: str) -> int:
        return int(name.rpartition("-")[2])

    def submitted(self) -> list[int]:
        """Return how many items each submit had."""
        return [len(json.loads(request.body or b"")["items"]) for request in self.requests if "batch" in request.path]


INPUTS = [{"n": number} for number in range(1200)]


def test_never_more_is_under_way_than_allowed_and_each_submit_is_worth_its_request() -> None:
    server = ScriptedServer()
    server.polls_needed = 2
    server.play(map_inputs(server.settings(), "b", INPUTS, concurrency=300))
    assert len(server.emitted) == 1200
    assert server.most_under_way <= 300
    assert min(server.submitted()[:-1]) >= 150


def test_a_map_pauses_as_the_server_says() -> None:
    server = ScriptedServer()
    server.polls_needed = 4
    server.play(map_inputs(server.settings(), "b", INPUTS[:10]))
    assert server.sleeps == pytest.approx([0.3, 0.4, 0.4, 0.4])  # the first is the hint of the submit


def test_inputs_are_read_only_as_far_as_they_are_submitted() -> None:
    server = ScriptedServer()
    read: list[int] = []
    inputs = ({"n": number} for number in range(1000) if read.append(number) is None)  # type: ignore[func-returns-value]
    flow = map_inputs(server.settings(), "b", inputs, concurrency=50)
    outcome = None
    while (effect := flow.send(outcome)) is not None and not hasattr(effect, "value"):
        outcome = server._outcome_of(effect)
    assert len(read) <= 51
    flow.close()


def test_a_map_that_goes_on_submits_only_what_its_file_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "state"
    first = ScriptedServer()
    first.polls_needed = 2
    flow, outcome = map_inputs(first.settings(), "b", INPUTS[:2], state=path), None
    for _ in range(4):  # it is stopped after its submit and a poll
        outcome = first._outcome_of(flow.send(outcome))
    flow.close()
    server = ScriptedServer()
    server.polls = dict.fromkeys(first.polls, 0)
    server.play(map_inputs(server.settings(), "b", INPUTS[:4], state=path))
    assert sorted(result.index for result in server.emitted) == [0, 1, 2, 3]
    assert (first.submitted(), server.submitted()) == ([2], [2])
    token = next(iter(first.polls)).rpartition("-")[0]
    assert {result.execution.execution_id for result in server.emitted} == {f"{token}-{index}" for index in range(4)}


def test_a_map_that_is_over_sends_nothing_when_it_is_started_again(tmp_path: Path) -> None:
    server = ScriptedServer()
    server.play(map_inputs(server.settings(), "b", INPUTS[:5], state=tmp_path / "state"))
    again = ScriptedServer()
    again.play(map_inputs(again.settings(), "b", INPUTS[:5], state=tmp_path / "state"))
    assert (again.emitted, again.requests) == ([], [])


def test_a_run_that_is_no_longer_kept_is_a_result_with_its_error() -> None:
    server = ScriptedServer()
    server.forgets = True
    server.play(map_inputs(server.settings(), "b", INPUTS[:1]))
    [result] = server.emitted
    assert isinstance(result, MapResult)
    assert isinstance(result.error, NotFound)


def test_a_server_that_takes_nothing_for_ten_minutes_ends_a_map() -> None:
    server = ScriptedServer()
    server.refuse_status = 503
    with pytest.raises(Overloaded):
        server.play(map_inputs(server.settings(), "b", INPUTS[:1]))
    assert 585 < sum(server.sleeps) <= 600


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"idempotency_key": "mine"}, {"request_id": "mine"}])
def test_options_that_make_no_sense_are_refused_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"concurrency|idempotency|request"):
        map_inputs(FlowPlayer().settings(), "b", [], **options)


def test_a_misspelt_option_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="tags"):
        map_inputs(FlowPlayer().settings(), "b", [], tagz=["a"])  # type: ignore[call-arg]


def test_slow_runs_do_not_hold_up_the_results_of_those_behind_them() -> None:
    server = ScriptedServer()
    server.slow = set(range(600))
    flow, outcome = map_inputs(server.settings(), "b", INPUTS), None
    while len(server.emitted) < 600:
        outcome = server._outcome_of(flow.send(outcome))
        assert server.now_s < 1100, "the quick ones do not come"
    assert min(result.index for result in server.emitted) >= 600
    flow.close()


@pytest.mark.parametrize("bad", [None, [1], "text", {"n": {1}}])
def test_an_input_that_is_no_object_is_a_result_and_ends_nothing(bad: Any) -> None:
    server = ScriptedServer()
    server.play(map_inputs(server.settings(), "b", [INPUTS[0], bad, INPUTS[2]]))
    errors = {result.index: type(result.error) for result in server.emitted}
    assert errors == {0: type(None), 1: Invalid, 2: type(None)}


def test_refused_inputs_are_yielded_before_all_others_are_read() -> None:
    server = ScriptedServer()
    flow, outcome = map_inputs(server.settings(), "b", itertools.repeat({"n": {1}}), concurrency=10), None
    while len(server.emitted) < 30:  # the source never ends
        outcome = server._outcome_of(flow.send(outcome))
    flow.close()


def test_a_slow_source_is_submitted_as_far_as_it_came() -> None:
    server = ScriptedServer()

    def slowly() -> Iterator[dict[str, Any]]:
        for number in range(5):
            server.now_s += 0.6
            yield {"n": number}

    server.play(map_inputs(server.settings(), "b", slowly()))
    assert server.submitted() == [2, 2, 1]
    assert len(server.emitted) == 5


def test_an_input_that_its_source_changes_afterwards_is_sent_as_it_was() -> None:
    server = ScriptedServer()
    shared: dict[str, Any] = {}

    def reused() -> Iterator[dict[str, Any]]:
        for number in range(3):
            shared["n"] = number
            yield shared

    server.play(map_inputs(server.settings(), "b", reused()))
    [items] = [body["items"] for body in server.bodies() if "input_data" in body["items"][0]]
    assert [item["input_data"]["n"] for item in items] == [0, 1, 2]


def test_runs_that_a_broken_batch_has_made_are_recorded_before_the_map_ends(tmp_path: Path) -> None:
    accepted = {"status": 202, "execution_status": "queued", "execution_id": "id-0", "done": False, "rev": 1}
    busy = {"status": 503, "error_code": "overloaded", "detail": "too much"}
    player = FlowPlayer([reply(202, {"items": [accepted, busy]}), *[NO_REPLY] * 1000])
    with pytest.raises(Unavailable):
        player.play(map_inputs(player.settings(), "b", INPUTS[:2], state=tmp_path / "state"))
    assert '"id-0"' in (tmp_path / "state").read_text()


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (403, Forbidden)])
def test_what_concerns_all_inputs_ends_a_map_before_anything_is_recorded(
    tmp_path: Path, status: int, kind: type[BucketError]
) -> None:
    refused = {"status": status, "error_code": "basket_not_found", "detail": "did you mean another?"}
    player = FlowPlayer([reply(202, {"items": [refused] * 3})])
    with pytest.raises(kind, match="did you mean"):
        player.play(map_inputs(player.settings(), "misspelt", INPUTS[:3], state=tmp_path / "state"))
    server = ScriptedServer()
    server.play(map_inputs(server.settings(), "right", INPUTS[:3], state=tmp_path / "state"))
    assert len(server.emitted) == 3
