"""Fleet metrics: counters in Redis hashes, to which every process adds; ``fleet_collector`` reads them.

Each method only appends commands to a pipeline that is sent anyway; nothing is read or waited for. The counters start
again from 0 if Redis loses them, as any counter does when its process restarts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

EXECUTIONS_KEY: Final = "metrics:executions"  # field ["basket", "status"]
STEPS_KEY: Final = "metrics:steps"  # fields ["agent", bucket's index] and ["agent", "sum"]
RESCUES_KEY: Final = "metrics:rescues"  # field: the reason
STEP_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
LABELS_MAX: Final = 500
OTHER_LABEL: Final = "other"

# One command for all, because each command costs the worker more than Redis. The limit of runs is checked in Redis,
# where the hash is, so that no number of processes can fill it with the names of baskets.
_COUNT: Final = """
local runs = 2 + 3 * tonumber(ARGV[2])
for at = 3, runs, 3 do
  local field = ARGV[at]
  if redis.call('HEXISTS', KEYS[1], field) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    field = ARGV[at + 1]
  end
  redis.call('HINCRBY', KEYS[1], field, ARGV[at + 2])
end
for at = runs + 1, #ARGV, 2 do
  redis.call('HINCRBYFLOAT', KEYS[2], ARGV[at], ARGV[at + 1])
end
return 1
"""
_FIELDS_MAX: Final = LABELS_MAX * 3  # three final statuses


class FleetCounters:
    """Counts events of the fleet (ended runs, attempts, rescues) by appending commands to pipelines."""

    def count_ended(self, pipe: Any, runs: Mapping[tuple[str, str], int], steps: Sequence[tuple[str, float]]) -> None:
        """Count ended executions by (basket, status), and attempts as (agent, duration in seconds).

        After 1,500 pairs of basket and status, executions of a new pair count for the basket "other".
        """
        execution_args: list[str | bytes | int] = []
        for (basket, status), count in runs.items():
            execution_args += (_field(basket, status), _field(OTHER_LABEL, status), count)
        step_sums: dict[bytes, float] = defaultdict(float)
        for agent, seconds in steps:
            step_sums[_field(agent, bisect_left(STEP_BUCKETS_S, seconds))] += 1
            step_sums[_field(agent, "sum")] += max(0.0, seconds)
        if execution_args or step_sums:
            step_args = [
                str(value) if isinstance(value, float) else value for pair in step_sums.items() for value in pair
            ]
            pipe.eval(_COUNT, 2, EXECUTIONS_KEY, STEPS_KEY, _FIELDS_MAX, len(runs), *execution_args, *step_args)

    def count_rescue(self, pipe: Any, reason: str) -> None:
        """Count a rescue: a step that the reconciler offered again, for ``reason``."""
        pipe.hincrby(RESCUES_KEY, reason, 1)


def _field(*parts: str | int) -> bytes:
    """Encode the parts as one hash field, in JSON, so that names may have any characters."""
    return orjson.dumps([part.encode("utf-8", "replace").decode() if isinstance(part, str) else part for part in parts])
