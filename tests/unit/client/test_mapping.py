"""A map: how much is under way, what a state file spares, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bucket_client import MapResult, NotFound, Overloaded
from bucket_client.effects import Reply, Request
from bucket_client.map_state import FileState
from bucket_client.mapping import map_inputs
from tests.unit.client.flow_player import FlowPlayer, reply


class ScriptedServer(FlowPlayer):
    """Accepts every item, and says of each run that it is done when it is polled for the ``polls_needed``-th time."""

    polls_needed = 1
    refuse_status: int | None = None
    forgets = False

    def __init__(self) -> None:
        super().__init__()
        self.polls: dict[str, int] = {}
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
        accepted = {"status": 202, "execution_status": "queued", "done": False, "rev": 1}
        return reply(202, {"items": [accepted | {"execution_id": name} for name in ids]})

    def _poll(self, items: list[dict[str, Any]]) -> Reply:
        ids = [item["execution_id"] for item in items]
        if self.forgets:
            return reply(200, {"changed": [], "not_found": ids, "poll_after_ms": None})
        is_fetch = "rev" not in items[0]
        for name in ids:
            self.polls[name] += not is_fetch
        done = [name for name in ids if self.polls[name] >= self.polls_needed]
        if is_fetch:
            self.polls = {name: count for name, count in self.polls.items() if name not in done}
        views = [{"execution_id": name, "status": "completed", "done": True, "rev": 3} for name in done]
        return reply(200, {"changed": views, "not_found": [], "poll_after_ms": 400})

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
    assert server.sleeps == [0.4, 0.4, 0.4]


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
    first = FileState(path, "b")
    first.record_submitted({0: ("id-0", b'{"n":0}'), 1: ("id-1", b'{"n":1}')})
    first.record_returned(0)
    first.close()
    server = ScriptedServer()
    server.polls = {"id-1": 0}
    server.play(map_inputs(server.settings(), "b", INPUTS[:4], state=path))
    assert sorted(result.index for result in server.emitted) == [1, 2, 3]
    assert server.submitted() == [2]
    assert {result.execution.execution_id for result in server.emitted} == {
        "id-1",
        f"{first.token}-2",
        f"{first.token}-3",
    }


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


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"idempotency_key": "mine"}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    server = ScriptedServer()
    with pytest.raises(ValueError, match=r"concurrency|idempotency"):
        server.play(map_inputs(server.settings(), "b", [], **options))


def test_a_misspelt_option_is_refused() -> None:
    server = ScriptedServer()
    with pytest.raises(TypeError, match="tags"):
        server.play(map_inputs(server.settings(), "b", [], tagz=["a"]))  # type: ignore[call-arg]
