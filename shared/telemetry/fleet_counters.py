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

from shared.telemetry.window_counters import CODES_MAX, WINDOW_PREFIX, RunEvent, window_arguments

EXECUTIONS_KEY: Final = "metrics:executions"  # field ["basket", "status"]
STEPS_KEY: Final = "metrics:steps"  # fields ["agent", bucket's index] and ["agent", "sum"]
RESCUES_KEY: Final = "metrics:rescues"  # field: the reason
FAILURES_KEY: Final = "metrics:step_failures"  # field ["agent", "error_code"]
RETRIES_KEY: Final = "metrics:retries"  # a number
STEP_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
LABELS_MAX: Final = 500
OTHER_LABEL: Final = "other"

# One command for all, because each command costs the worker more than Redis. The limits are checked in Redis, where
# the hashes are, so that no number of processes can fill them with the names of baskets, or with codes of failures. The
# script makes the keys of the windows itself, which spares their arguments; their lifetime is set with a new field.
_COUNT: Final = """
local runs = 4 + 3 * tonumber(ARGV[2])
for at = 5, runs, 3 do
  local field = ARGV[at]
  if redis.call('HEXISTS', KEYS[1], field) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    field = ARGV[at + 1]
  end
  redis.call('HINCRBY', KEYS[1], field, ARGV[at + 2])
end
local steps = runs + 2 * tonumber(ARGV[3])
for at = runs + 1, steps, 2 do
  redis.call('HINCRBYFLOAT', KEYS[2], ARGV[at], ARGV[at + 1])
end
local at, tiers, slots = steps + 1, {'m:', 'q:'}, {}
while at < #ARGV do
  local last = at + 2 + 2 * ARGV[at + 2]
  slots[1] = ':' .. ARGV[at + 1]
  slots[2] = ':' .. math.floor(ARGV[at + 1] / 15)
  for tier = 1, 2 do
    for owner = 1, 2 do
      local name = KEYS[3] .. tiers[tier] .. (owner == 1 and ARGV[at] or '') .. slots[tier]
      local is_new = false
      for pair = at + 3, last, 2 do
        local field = ARGV[pair]
        if string.sub(field, 1, 2) == 'f:' and redis.call('HEXISTS', name, field) == 0 then
          if redis.call('HINCRBY', name, 'codes', 1) > tonumber(ARGV[4]) then
            field = 'f:other'
          end
        end
        if redis.call('HINCRBY', name, field, ARGV[pair + 1]) == tonumber(ARGV[pair + 1]) then
          is_new = true
        end
      end
      if is_new then
        redis.call('EXPIRE', name, tier == 1 and 3720 or 88200)
      end
    end
  end
  at = last + 1
end
return 1
"""
_COUNT_FAILURES: Final = """
for at = 4, #ARGV, 2 do
  local field = ARGV[at]
  if redis.call('HEXISTS', KEYS[1], field) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    field = ARGV[2]
  end
  redis.call('HINCRBY', KEYS[1], field, ARGV[at + 1])
end
redis.call('INCRBY', KEYS[2], ARGV[3])
"""
_FIELDS_MAX: Final = LABELS_MAX * 3  # three final statuses


class FleetCounters:
    """Counts events of the fleet (ended runs, attempts, rescues) by appending commands to pipelines."""

    def count_ended(
        self,
        pipe: Any,
        runs: Mapping[tuple[str, str], int],
        steps: Sequence[tuple[str, float]],
        events: Sequence[RunEvent] = (),
    ) -> None:
        """Count ended executions by (basket, status), and attempts as (agent, duration in seconds).

        ``events`` are the same executions for the windows of time.
        After 1,500 pairs of basket and status, executions of a new pair count for the basket "other".
        """
        execution_args: list[str | bytes | int] = []
        for (basket, status), count in runs.items():
            execution_args += (_field(basket, status), _field(OTHER_LABEL, status), count)
        step_sums: dict[bytes, float] = defaultdict(float)
        for agent, seconds in steps:
            step_sums[_field(agent, bisect_left(STEP_BUCKETS_S, seconds))] += 1
            step_sums[_field(agent, "sum")] += max(0.0, seconds)
        if not (execution_args or step_sums or events):
            return
        step_args = [str(value) if isinstance(value, float) else value for pair in step_sums.items() for value in pair]
        window_args = window_arguments(events)
        limits_and_counts = (_FIELDS_MAX, len(runs), len(step_sums), CODES_MAX)
        arguments = (*limits_and_counts, *execution_args, *step_args, *window_args)
        pipe.eval(_COUNT, 3, EXECUTIONS_KEY, STEPS_KEY, WINDOW_PREFIX, *arguments)

    def count_accepted(self, pipe: Any, events: Sequence[RunEvent]) -> None:
        """Count executions that were accepted, for the windows of time."""
        self.count_ended(pipe, {}, (), events)

    def count_failures(self, pipe: Any, failures: Mapping[tuple[str, str], int], retries: int) -> None:
        """Count attempts that failed by (agent, error code), and how many of them are tried again.

        After 500 pairs an attempt of a new pair counts for the agent "other" and the code "other".
        """
        if failures:
            pairs = [value for (agent, code), count in failures.items() for value in (_field(agent, code), count)]
            other = _field(OTHER_LABEL, OTHER_LABEL)
            pipe.eval(_COUNT_FAILURES, 2, FAILURES_KEY, RETRIES_KEY, LABELS_MAX, other, retries, *pairs)

    def count_rescue(self, pipe: Any, reason: str) -> None:
        """Count a rescue: a step that the reconciler offered again, for ``reason``."""
        pipe.hincrby(RESCUES_KEY, reason, 1)


def _field(*parts: str | int) -> bytes:
    """Encode the parts as one hash field, in JSON, so that names may have any characters."""
    return orjson.dumps([part.encode("utf-8", "replace").decode() if isinstance(part, str) else part for part in parts])
