"""Accept markers: set for runs whose scheduled time is near, found by others, and short-lived."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from shared.domain.execution import Execution
from shared.live import accept_markers
from shared.live.accept_markers import ACCEPT_MARKER_TTL_S
from tests.builders import NOON, accept_decision

NEAR = NOON + timedelta(seconds=ACCEPT_MARKER_TTL_S - 1)
FAR = NOON + timedelta(seconds=ACCEPT_MARKER_TTL_S)


def is_marked(client: redis.Redis, run: Execution) -> bool:
    with client.pipeline(transaction=False) as pipe:
        accept_markers.mark_accepted(pipe, run)
        pipe.execute()
    return accept_markers.find_marked(client, ["another", run.id]) == {run.id}


@pytest.mark.parametrize("which", ["run_after", "start_deadline", "deadline"])
def test_a_marker_is_set_for_a_near_schedule_and_expires(client: redis.Redis, which: str) -> None:
    assert is_marked(client, accept_decision(**{which: NEAR}).execution)
    (key,) = client.keys("accepted:*")
    assert 0 < client.ttl(key) <= ACCEPT_MARKER_TTL_S
    assert not is_marked(client, accept_decision(id="1763700000_00000000000000ff", **{which: FAR}).execution)


def test_a_run_without_a_schedule_gets_no_marker(client: redis.Redis) -> None:
    assert not is_marked(client, accept_decision().execution)
    assert accept_markers.find_marked(client, []) == set()
