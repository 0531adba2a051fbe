"""Duration samples in Redis: the durations of recent runs of each basket, and of recent attempts of each agent.

Each key holds at most :data:`SAMPLES_MAX` samples in slots chosen at random: a new sample replaces a random one, so
that the samples are fair and old ones fade away (a biased reservoir). Recording is one command of a pipeline that is
sent anyway; samples that Redis loses are learned again from new runs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

import orjson
import redis

from shared.domain.execution import Execution
from shared.domain.status import ExecutionStatus

SAMPLES_MAX: Final = 100
SAMPLES_TTL_S: Final = 14 * 86_400

_RECORD: Final = """
for index, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2 * index], ARGV[2 * index + 1])
  redis.call('EXPIRE', key, ARGV[1])
end
"""


def run_samples_key(execution: Execution) -> str:
    """Return the key for similar runs: same integrator, basket name, strategy and list of agents."""
    basket = execution.basket
    return _key((execution.integrator, basket.name, basket.strategy, *basket.agents))


@lru_cache(maxsize=256)
def _key(parts: tuple[str, ...]) -> str:
    return f"durations:run:{hashlib.blake2b(orjson.dumps(parts), digest_size=8).hexdigest()}"


def agent_samples_key(agent: str) -> str:
    """Return the key for the attempts of an agent."""
    return f"durations:agent:{agent}"


def run_duration_s(execution: Execution) -> float | None:
    """Return the seconds from a run's first claim to its end; None if it never ran, or neither completed nor failed."""
    if execution.started_at is None or execution.finished_at is None:
        return None
    if execution.status not in {ExecutionStatus.COMPLETED, ExecutionStatus.FAILED}:
        return None
    return (execution.finished_at - execution.started_at) / timedelta(seconds=1)


def record_durations(pipe: Any, decisions: Iterable[tuple[Execution, Iterable[tuple[str, float]]]]) -> None:
    """Append to ``pipe`` one command that records the durations of attempts, and of the runs that are over."""
    samples: list[tuple[str, float]] = []
    for execution, durations in decisions:
        samples += [(agent_samples_key(agent), seconds) for agent, seconds in durations]
        seconds = run_duration_s(execution)
        if seconds is not None:
            samples.append((run_samples_key(execution), seconds))
    if samples:
        slots_and_ms: list[Any] = []
        for _, seconds in samples:
            slots_and_ms += (random.randrange(SAMPLES_MAX), int(seconds * 1_000))  # noqa: S311
        pipe.eval(_RECORD, len(samples), *(key for key, _ in samples), SAMPLES_TTL_S, *slots_and_ms)


def read_samples(client: redis.Redis, keys: Sequence[str]) -> Mapping[str, tuple[float, ...]]:
    """Return the duration samples under each key, in seconds, sorted, if they are numbers. Raises RedisError."""
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hvals(key)
    replies = zip(keys, pipe.execute(), strict=True)
    return {key: tuple(sorted(int(value) / 1_000 for value in values if value.isdigit())) for key, values in replies}
