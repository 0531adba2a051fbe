"""Poll hints: when to poll again, and what a run waits for; computed at each poll, as a delay and never as a date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from api.hints.poll_hints import NO_HINTS, PollHints, compute_hints
from api.hints.poll_schedule import PollSchedule, build_schedule
from api.hints.schedule_cache import PRIOR_SCHEDULE
from shared.domain.execution import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER
from shared.live.duration_stats import agent_samples_key
from shared.live.redis_monitor import RedisSnapshot
from shared.live.render import ViewHeader
from shared.live.view_trailer import RunTiming, Trailer, WaitState
from shared.queue.estimates import OldestMessage, QueueSnapshot
from shared.queue.message import list_key

BEGAN = datetime.fromtimestamp(1_763_700_000, UTC)
BEGAN_MS = int(BEGAN.timestamp() * 1_000)
ID = "1763700000_89ce24ad1b2c3d4e"
RUNNING = ViewHeader(ID, "running", is_done=False, rev=3)
BUSY = RedisSnapshot(is_connected=True, backlog=1, workers=2)
RUN_KEY, AGENT_KEY = "durations:run:x", agent_samples_key("a")
STARTED = RunTiming(RUN_KEY, agent="a", started_ms=BEGAN_MS, step_ms=BEGAN_MS)
OFFERED = RunTiming(RUN_KEY, agent="a", offered_ms=BEGAN_MS, queue="default", priority=PRIORITY_FIRST_OFFER)
QUEUED = Trailer(WaitState("queue"), OFFERED)


def after(age_s: float) -> datetime:
    return BEGAN + timedelta(seconds=age_s)


def hint_at(
    trailer: Trailer, age_s: float, schedules: Mapping[str, PollSchedule] | None = None, snapshot: RedisSnapshot = BUSY
) -> tuple[float, Mapping[str, object] | None]:
    """Return the seconds until the next poll (the least of 30 hints, because of jitter) and ``waiting_for``."""
    hints = [
        compute_hints(RUNNING, trailer, after(age_s), snapshot, lambda key: (schedules or {}).get(key, PRIOR_SCHEDULE))
        for _ in range(30)
    ]
    waits = [hint.poll_after_ms for hint in hints if hint.poll_after_ms is not None]
    assert len(waits) == 30
    assert max(waits) <= min(waits) * 1.06 + 1
    return min(waits) / 1_000, hints[0].waiting_for


def test_a_run_of_a_known_basket_is_polled_when_such_runs_end() -> None:
    schedules = {RUN_KEY: build_schedule([2.0] * 20)}
    assert hint_at(Trailer(None, STARTED), 0.5, schedules)[0] == pytest.approx(1.6, abs=0.15)
    assert hint_at(Trailer(None, STARTED), 1.9, schedules)[0] == pytest.approx(0.3, abs=0.05)


def test_a_run_that_outlasts_the_quick_ones_is_judged_by_the_slow_ones() -> None:
    schedules = {RUN_KEY: build_schedule([0.2] * 50 + [20.0] * 50)}
    assert hint_at(Trailer(None, STARTED), 0.1, schedules)[0] == pytest.approx(0.25, abs=0.1)
    assert hint_at(Trailer(None, STARTED), 1.0, schedules)[0] == pytest.approx(19.6, abs=0.5)


def test_an_unknown_basket_is_judged_by_the_agent_of_its_step() -> None:
    schedules = {AGENT_KEY: build_schedule([8.0] * 20)}
    assert hint_at(Trailer(None, STARTED), 1.0, schedules)[0] == pytest.approx(7.3, abs=0.3)
    later = replace(STARTED, step_ms=BEGAN_MS + 5_000)
    assert hint_at(Trailer(None, later), 6.0, schedules)[0] == pytest.approx(7.3, abs=0.3)


def test_a_later_attempt_is_judged_by_its_agent_because_the_runs_age_says_nothing() -> None:
    schedules = {RUN_KEY: build_schedule([2.0] * 20), AGENT_KEY: build_schedule([4.0] * 20)}
    again = replace(STARTED, again=True, step_ms=BEGAN_MS + 30_000)
    assert hint_at(Trailer(None, again), 31.0, schedules)[0] == pytest.approx(3.2, abs=0.3)


def test_a_run_that_is_being_stopped_is_polled_soon_and_then_less_often() -> None:
    schedules = {RUN_KEY: build_schedule([600.0] * 20)}
    stopping = replace(STARTED, cancel_ms=BEGAN_MS + 100_000)
    assert hint_at(Trailer(None, stopping), 100.1, schedules)[0] < 1
    assert 1 < hint_at(Trailer(None, stopping), 108, schedules)[0] < 10


@pytest.mark.parametrize(
    "trailer",
    [
        Trailer(None, STARTED),
        QUEUED,
        Trailer(WaitState("retry", BEGAN_MS + 900_000), STARTED),
        Trailer(WaitState("schedule", BEGAN_MS + 900_000), OFFERED),
    ],
)
def test_no_run_is_polled_later_than_right_after_its_deadline(trailer: Trailer) -> None:
    assert trailer.timing is not None
    schedules = dict.fromkeys((RUN_KEY, AGENT_KEY), build_schedule([900.0] * 20))
    with_deadline = Trailer(trailer.wait_state, replace(trailer.timing, expires_ms=BEGAN_MS + 110_000))
    assert hint_at(trailer, 105, schedules)[0] > 15
    assert hint_at(with_deadline, 105, schedules)[0] == pytest.approx(5.6, abs=0.2)
    assert hint_at(with_deadline, 105, schedules, replace(BUSY, workers=0))[0] == pytest.approx(5.6, abs=0.2)
    assert hint_at(with_deadline, 110.1, schedules)[0] < 0.5, "the reconciler is about to see it"


def test_a_deadline_that_lies_far_ahead_changes_no_hint() -> None:
    schedules = {RUN_KEY: build_schedule([2.0] * 20)}
    assert hint_at(Trailer(None, replace(STARTED, expires_ms=BEGAN_MS + 60_000)), 0.5, schedules)[0] == pytest.approx(
        1.6, abs=0.15
    )


def test_a_poll_that_an_older_release_rendered_is_judged_by_its_id() -> None:
    assert hint_at(Trailer(), 0)[0] < 1
    assert 5 < hint_at(Trailer(), 20)[0] < 20
    assert hint_at(Trailer(WaitState("queue")), 20)[1] == {"reason": "queue", "position": None, "eta_ms": None}


def test_an_id_from_the_future_and_a_clock_that_was_never_read_give_an_early_poll() -> None:
    assert hint_at(Trailer(), -50)[0] < 1
    hints = compute_hints(RUNNING, QUEUED, None, BUSY, lambda _: PRIOR_SCHEDULE)
    assert hints.poll_after_ms is not None
    assert 250 <= hints.poll_after_ms < 1_000
    assert hints.waiting_for == {"reason": "queue", "position": None, "eta_ms": None}


@pytest.mark.parametrize("age_s", [0, 1, 10, 1_000, 1e6])
@pytest.mark.parametrize(
    "trailer", [Trailer(None, STARTED), QUEUED, Trailer(WaitState("retry", BEGAN_MS + 10**9), STARTED), Trailer()]
)
def test_a_hint_is_always_within_its_bounds(trailer: Trailer, age_s: float) -> None:
    assert 0.25 <= hint_at(trailer, age_s, {RUN_KEY: build_schedule([5e5] * 3)})[0] <= 30


def test_a_run_that_is_over_has_no_hints() -> None:
    assert orjson.loads(b'{"a":1' + NO_HINTS.json_suffix) == {"a": 1, "waiting_for": None}
    assert NO_HINTS.retry_after_s is None


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (BUSY, "queue"),
        (RedisSnapshot(is_connected=True, workers=0), "no_worker"),
        (RedisSnapshot(is_connected=False), "queue"),  # the workers are unknown while Redis is away
    ],
)
def test_a_waiting_run_says_what_it_waits_for(snapshot: RedisSnapshot, reason: str) -> None:
    hints = compute_hints(RUNNING, QUEUED, after(1), snapshot, lambda _: PRIOR_SCHEDULE)
    poll = orjson.loads(b'{"a":1' + hints.json_suffix)
    assert poll["poll_after_ms"] == hints.poll_after_ms
    assert poll["waiting_for"] == {"reason": reason, "position": None, "eta_ms": None}


def test_without_a_worker_polls_come_ever_less_often() -> None:
    waits = [
        hint_at(QUEUED, age_s, snapshot=RedisSnapshot(is_connected=True, workers=0))[0] for age_s in (0, 5, 30, 1_000)
    ]
    assert waits == sorted(waits)
    assert waits[-1] == 30


@pytest.mark.parametrize("reason", ["retry", "schedule", "queue"])
def test_a_delayed_run_is_polled_when_it_may_be_over_after_its_delay(reason: str) -> None:
    schedules = {RUN_KEY: build_schedule([2.0] * 20)}
    wait_s, waiting = hint_at(
        Trailer(WaitState(reason, BEGAN_MS + 7_000), replace(OFFERED, offered_ms=None, queue=None)), 5, schedules
    )
    assert wait_s == pytest.approx(4.1, abs=0.3)
    assert waiting == {"reason": reason, "position": None, "eta_ms": 2_000}


def queue_snapshot(length: int, per_ms: float | None, oldest: str = "other") -> QueueSnapshot:
    """Return a queue to which one message has come each millisecond, up to the time of our own offer."""
    since = BEGAN_MS - length
    arrived = (0.0, float(length), float(length))
    return QueueSnapshot(length, OldestMessage(oldest, since), per_ms, (since, BEGAN_MS, BEGAN_MS + 10), arrived)


def redis_with_queues(first: QueueSnapshot, again: QueueSnapshot | None = None) -> RedisSnapshot:
    queues = {
        list_key(queue, priority): QueueSnapshot()
        for queue in ("default", "long")
        for priority in (PRIORITY_FIRST_OFFER, PRIORITY_REOFFER)
    }
    queues |= {
        list_key("default", PRIORITY_FIRST_OFFER): first,
        list_key("default", PRIORITY_REOFFER): again or QueueSnapshot(),
    }
    return replace(BUSY, queues=queues)


def test_position_and_eta_come_from_the_queue_and_its_drain_rate() -> None:
    schedules = {RUN_KEY: build_schedule([2.0] * 20)}
    wait_s, waiting = hint_at(QUEUED, 0.01, schedules, redis_with_queues(queue_snapshot(400, 0.1)))
    assert waiting == {"reason": "queue", "position": 399, "eta_ms": 3_995}
    assert wait_s == pytest.approx(4.0 + 2.1, abs=0.3)


def test_rescues_go_first_and_count_as_ahead() -> None:
    snapshot = redis_with_queues(
        queue_snapshot(400, 0.1), QueueSnapshot(50, OldestMessage("rescued", BEGAN_MS), 0.1, (BEGAN_MS,), (50.0,))
    )
    waiting = hint_at(QUEUED, 0.01, snapshot=snapshot)[1]
    assert waiting == {"reason": "queue", "position": 449, "eta_ms": 2_248}


def test_only_the_oldest_message_has_position_zero() -> None:
    assert hint_at(QUEUED, 0.01, snapshot=redis_with_queues(queue_snapshot(1, 0.1, oldest=ID)))[1] == {
        "reason": "queue", "position": 0, "eta_ms": 5,
    }  # fmt: skip
    at_the_end = replace(QUEUED, timing=replace(OFFERED, offered_ms=BEGAN_MS - 400))
    assert hint_at(at_the_end, 0.01, snapshot=redis_with_queues(queue_snapshot(400, 0.1)))[1] == {
        "reason": "queue", "position": 1, "eta_ms": 15,
    }  # fmt: skip


def test_a_run_in_a_queue_that_does_not_drain_has_no_eta_and_is_polled_ever_less_often() -> None:
    wait_s, waiting = hint_at(QUEUED, 20, snapshot=redis_with_queues(queue_snapshot(400, None)))
    assert waiting == {"reason": "queue", "position": 399, "eta_ms": None}
    assert wait_s == pytest.approx(6.0, abs=0.4)


def test_a_run_whose_message_has_left_its_queue_runs_by_now_or_soon() -> None:
    schedules = {RUN_KEY: build_schedule([2.0] * 20)}
    wait_s, waiting = hint_at(QUEUED, 0.5, schedules, redis_with_queues(QueueSnapshot()))
    assert waiting == {"reason": "queue", "position": None, "eta_ms": None}
    assert wait_s == pytest.approx(1.6, abs=0.15)


@pytest.mark.parametrize(("ms", "seconds"), [(250, 1), (1_000, 1), (1_001, 2), (29_999, 30), (30_000, 30)])
def test_retry_after_is_the_same_in_whole_seconds_rounded_up(ms: int, seconds: int) -> None:
    assert PollHints(ms, None).retry_after_s == seconds
