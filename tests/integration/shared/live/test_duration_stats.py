"""Duration samples of runs and attempts in Redis: the newest hundred of each, with one command per write."""

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
from shared.telemetry.fleet_counters import FleetCounters
from tests.builders import NOON, SECOND, TIMINGS, accept_decision, claim_decision


def completed_run(seconds: float = 2.0, *steps: str) -> Decision:
    """Return the decision that completes a run ``seconds`` after its claim."""
    claimed_run = claim_decision(accept_decision(*steps).execution, steps[0] if steps else "only").execution
    lease = claimed_run.lease_of(steps[0] if steps else "only")
    return complete(claimed_run, lease, StepOutput(lease.step, b"{}"), NOON + seconds * SECOND, TIMINGS)


def stored_samples(client: redis.Redis, *keys: str) -> Mapping[str, tuple[float, ...]]:
    return duration_stats.read_samples(client, keys)


def test_durations_of_a_run_and_its_attempts_are_stored_when_they_end(client: redis.Redis) -> None:
    decision = completed_run(2.0)
    publisher = Publisher(client, ViewCache(client, 15), FleetCounters())
    record = replace(decision.initial_record, outputs={"only": b"{}"})
    publisher.publish_decisions(
        [SavedDecision(record, decision, agent_durations=[("only", 1.25), ("only", 0.75)])], as_of=boottime_s()
    )
    run, agent = duration_stats.run_samples_key(decision.execution), duration_stats.agent_samples_key("only")
    samples = stored_samples(client, run, agent, duration_stats.agent_samples_key("other"))
    assert samples[run] == (2.0,)
    assert samples[agent] in {(0.75, 1.25), (0.75,), (1.25,)}, "two may fall into one slot"
    assert samples[duration_stats.agent_samples_key("other")] == ()
    assert all(0 < client.ttl(key) <= duration_stats.SAMPLES_TTL_S for key in (run, agent))


def test_it_is_one_command_of_the_pipeline(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    duration_stats.record_durations(pipe, [(completed_run().execution, [("a", 1.0), ("b", 2.0)])])
    assert len(pipe.command_stack) == 1
    duration_stats.record_durations(pipe, [(accept_decision().execution, [])])
    assert len(pipe.command_stack) == 1, "an unfinished run stores nothing"


def test_the_newest_hundred_are_kept_and_old_samples_are_replaced(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    old, new = completed_run(1.0).execution, completed_run(9.0).execution
    for run in [old] * 300 + [new] * 1_000:
        duration_stats.record_durations(pipe, [(run, [])])
    pipe.execute()
    sample = stored_samples(client, duration_stats.run_samples_key(new))[duration_stats.run_samples_key(new)]
    assert 90 <= len(sample) <= duration_stats.SAMPLES_MAX
    assert sample.count(9.0) >= len(sample) - 2


def test_a_run_cancelled_or_never_begun_stores_no_sample() -> None:
    claimed_run = claim_decision(accept_decision().execution, "only").execution
    for run in (claimed_run, accept_decision().execution):
        decision = cancel(run, NOON + SECOND)
        assert decision is not None
        assert duration_stats.run_duration_s(decision.execution) is None


def test_a_changed_basket_has_new_samples() -> None:
    one, two = accept_decision("a").execution, accept_decision("a", "b").execution
    renamed = replace(one, basket=replace(one.basket, name="other"))
    foreign = replace(one, integrator="other")
    keys = [duration_stats.run_samples_key(run) for run in (one, two, renamed, foreign)]
    assert len(set(keys)) == 4
    assert duration_stats.run_samples_key(accept_decision("a").execution) == keys[0]


@pytest.mark.parametrize("name", ["a\nsequential\nb", '"}{', "é"])
def test_a_key_does_not_reveal_a_name(name: str) -> None:
    run: Execution = accept_decision().execution
    key = duration_stats.run_samples_key(replace(run, basket=replace(run.basket, name=name)))
    assert orjson.dumps(key) == b'"' + key.encode() + b'"'
    assert len(key) == len("durations:run:") + 16
