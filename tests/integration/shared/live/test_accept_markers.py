"""Word of runs that were accepted is left where a moment is near, is found, and does not stay."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from shared.domain.execution import Execution
from shared.live import accept_markers
from shared.live.accept_markers import ACCEPT_MARKER_TTL_S
from tests.builders import NOON, accepted

NEAR = NOON + timedelta(seconds=ACCEPT_MARKER_TTL_S - 1)
FAR = NOON + timedelta(seconds=ACCEPT_MARKER_TTL_S)


def noted(client: redis.Redis, run: Execution) -> bool:
    with client.pipeline(transaction=False) as pipe:
        accept_markers.mark_accepted(pipe, run)
        pipe.execute()
    return accept_markers.find_marked(client, ["another", run.id]) == {run.id}


@pytest.mark.parametrize("which", ["run_after", "start_deadline", "deadline"])
def test_word_is_left_where_a_moment_is_near_and_does_not_stay(client: redis.Redis, which: str) -> None:
    assert noted(client, accepted(**{which: NEAR}).execution)
    (key,) = client.keys("accepted:*")
    assert 0 < client.ttl(key) <= ACCEPT_MARKER_TTL_S
    assert not noted(client, accepted(id="1763700000_00000000000000ff", **{which: FAR}).execution)


def test_a_run_that_waits_for_nothing_costs_no_word(client: redis.Redis) -> None:
    assert not noted(client, accepted().execution)
    assert accept_markers.find_marked(client, []) == set()
