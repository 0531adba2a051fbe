"""Token buckets in Redis, shared by all API processes: one script charges buckets and returns their levels.

A bucket is one number (GCRA): the time at which it is full again. It is kept until then, and a bucket that is not
there is full: so an empty Redis refuses nobody. The time is Redis's own, so the clocks of the processes do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

_PREFIX: Final = "limit:"
DEBT_MAX: Final = 1_000
"""A bucket never owes more than its burst and so many tokens; one that does was written before the clock went back."""

# KEYS: the buckets. ARGV, for each: ms a token takes, burst, tokens that were spent before, tokens to take now, tokens
# that must be there for it. Reply, for each: 1 if they were taken, else 0, and the level as a text.
_CHARGE: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local replies = {{}}
for index, key in ipairs(KEYS) do
  local at = (index - 1) * 5
  local interval, burst, spent = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local full_at = tonumber(redis.call('GET', key) or 0)
  if full_at < now or full_at - now > (2 * burst + {DEBT_MAX}) * interval then full_at = now end
  full_at = math.max(full_at + spent * interval, now)
  local taken = 0
  if burst - (full_at - now) / interval >= tonumber(ARGV[at + 5]) then
    full_at = full_at + ARGV[at + 4] * interval
    taken = 1
  end
  local life = math.ceil(full_at - now)
  if life > 0 then
    redis.call('SET', key, string.format('%.3f', full_at), 'PX', life)
  else
    redis.call('DEL', key)
  end
  replies[#replies + 1] = taken
  replies[#replies + 1] = string.format('%.6f', burst - (full_at - now) / interval)
end
return replies
"""


@dataclass(frozen=True, slots=True)
class Charge:
    """What to do with one bucket: ``spent`` tokens are gone in any case, ``cost`` only if ``needed`` are there then."""

    name: str
    per_s: float
    burst: int
    spent: float = 0.0
    cost: float = 0.0
    needed: float = 0.0


@dataclass(frozen=True, slots=True)
class BucketLevel:
    """A bucket after a charge: whether the cost was taken, and the tokens that are left; below 0 they are owed."""

    is_taken: bool
    tokens: float


class SharedBuckets:
    """The buckets of all callers."""

    def __init__(self, client: redis.Redis) -> None:
        self._charge = client.register_script(_CHARGE)

    def charge(self, charges: Sequence[Charge]) -> Sequence[BucketLevel]:
        """Charge buckets in one round trip and return their levels, in order; raises RedisError."""
        keys = [f"{_PREFIX}{charge.name}" for charge in charges]
        numbers: list[float] = []
        for charge in charges:
            numbers += (1_000 / charge.per_s, charge.burst, charge.spent, charge.cost, charge.needed)
        replies: list[Any] = self._charge(keys=keys, args=numbers)
        return [BucketLevel(taken == 1, float(level)) for taken, level in zip(replies[::2], replies[1::2], strict=True)]
