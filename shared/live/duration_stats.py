"""Keeps in Redis how long the newest runs of each basket took, and the newest attempts of each agent.

Of each at most :data:`KEPT` are kept, in slots taken by chance: a new one replaces any other, so that what is kept is
a fair sample in which the old fades away. It is one command of a pipeline that is sent anyway; what Redis forgets is
learnt again from new runs.
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
for place, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2 * place], ARGV[2 * place + 1])
  redis.call('EXPIRE', key, ARGV[1])
end
"""


def run_samples_key(execution: Execution) -> str:
    """Answer the key of the runs alike: of an integrator's basket of this name, strategy and list of agents."""
    basket = execution.basket
    return _key((execution.integrator, basket.name, basket.strategy, *basket.agents))


@lru_cache(maxsize=256)
def _key(parts: tuple[str, ...]) -> str:
    return f"durations:run:{hashlib.blake2b(orjson.dumps(parts), digest_size=8).hexdigest()}"


def agent_samples_key(agent: str) -> str:
    """Answer the key of an agent's attempts."""
    return f"durations:agent:{agent}"


def run_duration_s(execution: Execution) -> float | None:
    """Answer how long a run took from its first claim; None for one that never ran, or was stopped from outside."""
    if execution.started_at is None or execution.finished_at is None:
        return None
    if execution.status not in {ExecutionStatus.COMPLETED, ExecutionStatus.FAILED}:
        return None
    return (execution.finished_at - execution.started_at) / timedelta(seconds=1)


def record_durations(pipe: Any, decisions: Iterable[tuple[Execution, Iterable[tuple[str, float]]]]) -> None:
    """Append to ``pipe`` the one command that notes how long attempts of agents took, and their runs that are over."""
    noted: list[tuple[str, float]] = []
    for execution, took in decisions:
        noted += [(agent_samples_key(agent), seconds) for agent, seconds in took]
        seconds = run_duration_s(execution)
        if seconds is not None:
            noted.append((run_samples_key(execution), seconds))
    if noted:
        slots_and_ms: list[Any] = []
        for _, seconds in noted:
            slots_and_ms += (random.randrange(SAMPLES_MAX), int(seconds * 1_000))  # noqa: S311
        pipe.eval(_RECORD, len(noted), *(key for key, _ in noted), SAMPLES_TTL_S, *slots_and_ms)


def read_samples(client: redis.Redis, keys: Sequence[str]) -> Mapping[str, tuple[float, ...]]:
    """Return the durations under each key, in seconds; none if nobody has noted any. Raises RedisError."""
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hvals(key)
    return {key: _parse_samples(values) for key, values in zip(keys, pipe.execute(), strict=True)}


def _parse_samples(values: Iterable[bytes]) -> tuple[float, ...]:
    """What is kept, sorted; whatever is no number stands for nothing."""
    return tuple(sorted(int(value) / 1_000 for value in values if value.isdigit()))
