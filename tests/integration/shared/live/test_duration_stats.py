"""How long runs and attempts took, as it is kept in Redis: the newest hundred of each, by one command a write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import orjson
import pytest
import redis

from shared.clock import boottime_s
from shared.domain.execution import Execution
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.transitions import cancel, complete
from shared.live import duration_stats
from shared.live.publisher import Publisher, SavedDecision
from shared.live.views import ViewCache
from shared.telemetry.fleet_metrics import FleetMetrics
from tests.builders import NOON, SECOND, TERMS, accepted, claimed


def ended(seconds: float = 2.0, *steps: str) -> Decision:
    """A run that took so long from its claim."""
    begun = claimed(accepted(*steps).execution, steps[0] if steps else "only").execution
    lease = begun.lease_of(steps[0] if steps else "only")
    return complete(begun, lease, StepOutput(lease.step, b"{}"), NOON + seconds * SECOND, TERMS)


def kept(client: redis.Redis, *keys: str) -> Mapping[str, tuple[float, ...]]:
    return duration_stats.read_samples(client, keys)


def test_a_run_and_its_attempts_are_noted_where_they_end(client: redis.Redis) -> None:
    advance = ended(2.0)
    publisher = Publisher(client, ViewCache(client, 15), FleetMetrics())
    record = replace(advance.initial_record, outputs={"only": b"{}"})
    publisher.publish_decisions(
        [SavedDecision(record, advance, agent_durations=[("only", 1.25), ("only", 0.75)])], as_of=boottime_s()
    )
    run, agent = duration_stats.run_samples_key(advance.execution), duration_stats.agent_samples_key("only")
    found = kept(client, run, agent, duration_stats.agent_samples_key("other"))
    assert found[run] == (2.0,)
    assert found[agent] in {(0.75, 1.25), (0.75,), (1.25,)}, "two may fall into one slot"
    assert found[duration_stats.agent_samples_key("other")] == ()
    assert all(0 < client.ttl(key) <= duration_stats.SAMPLES_TTL_S for key in (run, agent))


def test_it_is_one_command_of_the_pipeline(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    duration_stats.record_durations(pipe, [(ended().execution, [("a", 1.0), ("b", 2.0)])])
    assert len(pipe.command_stack) == 1
    duration_stats.record_durations(pipe, [(accepted().execution, [])])
    assert len(pipe.command_stack) == 1, "a run that goes on notes nothing"


def test_the_newest_hundred_are_kept_and_the_old_fades_away(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    old, new = ended(1.0).execution, ended(9.0).execution
    for run in [old] * 300 + [new] * 1_000:
        duration_stats.record_durations(pipe, [(run, [])])
    pipe.execute()
    sample = kept(client, duration_stats.run_samples_key(new))[duration_stats.run_samples_key(new)]
    assert 90 <= len(sample) <= duration_stats.SAMPLES_MAX
    assert sample.count(9.0) >= len(sample) - 2


def test_a_run_stopped_from_outside_or_never_begun_tells_nothing() -> None:
    begun = claimed(accepted().execution, "only").execution
    for run in (begun, accepted().execution):
        over = cancel(run, NOON + SECOND)
        assert over is not None
        assert duration_stats.run_duration_s(over.execution) is None


def test_a_basket_that_changed_begins_anew() -> None:
    one, two = accepted("a").execution, accepted("a", "b").execution
    renamed = replace(one, basket=replace(one.basket, name="other"))
    foreign = replace(one, integrator="other")
    keys = [duration_stats.run_samples_key(run) for run in (one, two, renamed, foreign)]
    assert len(set(keys)) == 4
    assert duration_stats.run_samples_key(accepted("a").execution) == keys[0]


@pytest.mark.parametrize("name", ["a\nsequential\nb", '"}{', "é"])
def test_a_key_says_nothing_of_a_name(name: str) -> None:
    run: Execution = accepted().execution
    key = duration_stats.run_samples_key(replace(run, basket=replace(run.basket, name=name)))
    assert orjson.dumps(key) == b'"' + key.encode() + b'"'
    assert len(key) == len("durations:run:") + 16
