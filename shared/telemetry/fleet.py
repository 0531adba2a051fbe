"""Keeps the fleet's figures in Redis hashes, where every process may add to them; ``scrape`` reads them.

Each verb only appends commands to a pipeline that is sent anyway; nothing is read or waited for. The figures begin
anew when Redis forgets, as any counter does when its process restarts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final

import orjson

EXECUTIONS: Final = "metrics:executions"  # field ["basket", "status"]
STEPS: Final = "metrics:steps"  # fields ["agent", bucket's index] and ["agent", "sum"]
RESCUES: Final = "metrics:rescues"  # field: the reason
BREAKERS: Final = "metrics:breakers"  # field: the host
STEP_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
BREAKER_STATES: Final[Mapping[str, int]] = {"closed": 0, "half_open": 1, "open": 2}
LABELS_MAX: Final = 500
OTHER: Final = "other"

# Counted where the hash is, so that no number of processes can fill it with the names of baskets.
_COUNT_CAPPED: Final = """
local field = ARGV[1]
if redis.call('HEXISTS', KEYS[1], field) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  field = ARGV[2]
end
return redis.call('HINCRBY', KEYS[1], field, 1)
"""
_FIELDS_MAX: Final = LABELS_MAX * 3  # three final statuses


class FleetMetrics:
    """Counts what the fleet does, by appending to pipelines."""

    def execution_ended(self, pipe: Any, basket: str, status: str) -> None:
        """Count an execution of ``basket`` that ended in ``status``; past 1,500 pairs it counts as basket "other"."""
        pipe.eval(_COUNT_CAPPED, 1, EXECUTIONS, _field(basket, status), _field(OTHER, status), _FIELDS_MAX)

    def step_ended(self, pipe: Any, agent: str, seconds: float) -> None:
        """Note that an attempt of ``agent`` took ``seconds``."""
        pipe.hincrby(STEPS, _field(agent, bisect_left(STEP_BUCKETS_S, seconds)), 1)
        pipe.hincrbyfloat(STEPS, _field(agent, "sum"), max(0.0, seconds))

    def rescued(self, pipe: Any, reason: str) -> None:
        """Count a step that the reconciler offered again, for ``reason``."""
        pipe.hincrby(RESCUES, reason, 1)

    def breaker_moved(self, pipe: Any, host: str, state: str) -> None:
        """Note that the breaker of ``host`` is now ``closed``, ``half_open`` or ``open``."""
        pipe.hset(BREAKERS, host, BREAKER_STATES[state])


def _field(*parts: str | int) -> bytes:
    """Answer a hash field that keeps its parts apart, whatever characters a name may hold."""
    return orjson.dumps([part.encode("utf-8", "replace").decode() if isinstance(part, str) else part for part in parts])
