"""The trailer at the end of a view: it is cut off after any content, and if any release wrote it."""

from __future__ import annotations

import json
from dataclasses import replace

import orjson
import pytest

from shared.domain.execution import (
    PRIORITY_FIRST_OFFER,
    PRIORITY_REOFFER,
    ErrorKind,
    Execution,
    ExecutionRecord,
    RunError,
)
from shared.domain.lifecycle.transitions import cancel, fail, rescue, start
from shared.live.render import render
from shared.live.view_trailer import RunTiming, Trailer, WaitState, split_trailer, trailer_of
from tests.builders import NOON, SECOND, TIMINGS, accept_decision, claim_decision, unstarted_run

NOON_MS = int(NOON.timestamp() * 1_000)
TRANSIENT = RunError("agent_error", "away", ErrorKind.TRANSIENT)


def rendered(execution: Execution) -> bytes:
    view = render(ExecutionRecord(execution))
    assert view is not None
    return view


def running() -> Execution:
    return claim_decision(accept_decision("one", "two").execution, "one").execution


def test_a_trailer_comes_back_as_it_was_written_and_leaves_a_view_without_its_brace() -> None:
    for execution in (accept_decision("one").execution, running()):
        view, trailer = split_trailer(rendered(execution))
        assert trailer == trailer_of(execution)
        assert "timing" not in orjson.loads(view + b"}")
        assert "resting" not in orjson.loads(view + b"}")


def test_a_trailer_of_a_newer_release_is_cut_off_and_ignored() -> None:
    view = b'{"rev":1,"timing":{"runs":"x","unheard_of":1},"resting":{"reason":"queue"}'
    assert split_trailer(view) == (b'{"rev":1', Trailer(WaitState("queue"), None))


def test_an_offered_run_has_its_queue_in_the_trailer_and_a_running_one_its_start() -> None:
    offered = trailer_of(accept_decision("one", "two").execution)
    assert offered.wait_state == WaitState("queue")
    assert offered.timing is not None
    assert (offered.timing.agent, offered.timing.offered_ms) == ("one", NOON_MS)
    assert (offered.timing.queue, offered.timing.priority, offered.timing.started_ms) == (
        "default",
        PRIORITY_FIRST_OFFER,
        None,
    )
    begun = trailer_of(running())
    assert (begun.wait_state, begun.timing) == (
        None,
        replace(offered.timing, offered_ms=None, queue=None, priority=0, started_ms=NOON_MS, step_ms=NOON_MS),
    )


def test_the_trailer_of_a_later_attempt_says_so_and_has_its_priority() -> None:
    lost = rescue(running(), "one", NOON + 60 * SECOND, TIMINGS)
    assert lost is not None
    timing = trailer_of(lost.execution).timing
    assert timing is not None
    assert (timing.again, timing.priority) == (True, PRIORITY_REOFFER)
    begun = running()
    delayed = fail(begun, begun.lease_of("one"), TRANSIENT, NOON + SECOND).execution
    assert trailer_of(delayed).wait_state == WaitState("retry", NOON_MS + 2_000)
    resting = trailer_of(delayed).timing
    assert resting is not None
    assert (resting.again, resting.offered_ms) == (True, None)


def test_the_trailer_of_a_run_that_is_being_cancelled_has_the_time_of_the_cancel() -> None:
    stopping = cancel(running(), NOON + 3 * SECOND)
    assert stopping is not None
    timing = trailer_of(stopping.execution).timing
    assert timing is not None
    assert timing.cancel_ms == NOON_MS + 3_000


def test_the_trailer_has_the_nearest_deadline_that_is_in_force() -> None:
    def expires_ms(execution: Execution) -> int | None:
        timing = trailer_of(execution).timing
        assert timing is not None
        return timing.expires_ms

    assert expires_ms(accept_decision("one").execution) is None
    assert b"expires_ms" not in rendered(accept_decision("one").execution), (
        "the release before this one does not know it"
    )
    bound = accept_decision("one", start_deadline=NOON + 5 * SECOND, deadline=NOON + 60 * SECOND).execution
    assert expires_ms(bound) == NOON_MS + 5_000
    assert expires_ms(claim_decision(bound, "one").execution) == NOON_MS + 60_000


def test_a_scheduled_run_waits_for_its_schedule() -> None:
    later = start(unstarted_run(run_after=NOON + 5 * SECOND), NOON, TIMINGS).execution
    assert trailer_of(later).wait_state == WaitState("schedule", NOON_MS + 5_000)


def test_a_run_that_is_over_has_no_trailer() -> None:
    over = cancel(accept_decision("one").execution, NOON)
    assert over is not None
    assert trailer_of(over.execution) == Trailer()
    assert split_trailer(rendered(over.execution)) == (rendered(over.execution), Trailer())


@pytest.mark.parametrize(
    "written",
    [{"a": 1, "timing": {}}, {"a": 1, "timing": {"runs": "x"}, "resting": {"reason": "x"}}, {"a": 0, "resting": {}}],
)
def test_what_callers_wrote_is_never_taken_for_the_trailer(written: dict[str, object]) -> None:
    over = cancel(replace(accept_decision("one").execution, metadata=orjson.dumps(written)), NOON, ',"timing":{}')
    assert over is not None
    view, trailer = split_trailer(rendered(over.execution))
    assert trailer == Trailer()
    assert orjson.loads(view + b"}")["metadata"] == written


def test_a_view_that_an_older_release_rendered_is_read() -> None:
    view = b'{"execution_id":"x","request_id":"req"'
    assert split_trailer(view) == (view, Trailer())
    resting = view + b',"resting":{"reason":"retry","until_ms":5}'
    assert split_trailer(resting) == (view, Trailer(WaitState("retry", 5)))


def test_an_older_release_finds_the_wait_state_at_the_end_of_the_view() -> None:
    view = rendered(accept_decision("one").execution)
    at = view.rfind(b',"resting":', -100)
    assert json.loads(view[at + len(b',"resting":') :]) == {"reason": "queue", "until_ms": None}
    assert json.loads(view[:at] + b"}")["timing"]["runs"].startswith("durations:run:")


def test_a_trailer_is_never_longer_than_the_part_of_the_view_that_is_searched() -> None:
    longest = RunTiming("durations:run:" + "f" * 16, "a" * 63, *[10**13] * 2, True, *[10**13] * 2, "default", 3)  # type: ignore[misc]
    view = b'{"a":1,"timing":' + orjson.dumps(longest) + b',"resting":' + orjson.dumps(WaitState("schedule", 10**13))
    assert split_trailer(view) == (b'{"a":1', Trailer(WaitState("schedule", 10**13), longest))
    assert len(view) < 500
