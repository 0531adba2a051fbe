"""A token bucket as one process sees it: what was left when it last settled with Redis, refilled and spent since."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from shared.limits import LimitClass, RateLimit
from shared.live.shared_buckets import Charge

SHARE: Final = 1 / 8
"""Up to eight processes that spend so much of what is left, or of what comes in, cannot spend more than there is."""


@dataclass(slots=True, eq=False)
class TokenBucket:
    """The bucket of one caller for one class of routes; ``now_s`` is :func:`shared.clock.boottime_s`."""

    limit_class: LimitClass
    caller: str
    limit: RateLimit
    tokens: float = field(init=False)
    unsettled: float = 0.0
    """What this process has spent since it last settled."""
    _at_s: float = -math.inf
    _settled_at_s: float = -math.inf
    _settled_tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self._settled_tokens = float(self.limit.burst)

    def level(self, now_s: float) -> float:
        """Return the tokens that are left at ``now_s``; below 0 they are owed.

        A request that was held may ask for an earlier time than others since: then nothing has come in.
        """
        if now_s > self._at_s:
            burst = self.limit.burst
            if self.tokens < burst:
                self.tokens = min(self.tokens + (now_s - self._at_s) * self.limit.per_s, float(burst))
            self._at_s = now_s
        return self.tokens

    def spend(self, cost: float, now_s: float) -> None:
        """Take tokens, also more than there are."""
        self.tokens = self.level(now_s) - cost
        self.unsettled += cost

    def must_settle(self, cost: float, now_s: float) -> bool:
        """Return whether other processes may have spent so much that this one has to ask before it takes ``cost``.

        Within its share it need not: what it takes is settled soon in the background, and Redis forgets no debt.
        """
        spent = self.unsettled + cost
        return spent > SHARE * self._settled_tokens and not self._is_of_refill(spent, now_s)

    def settles_itself(self, now_s: float) -> bool:
        """Return whether what was spent is so little that Redis need not know it, and forget it then.

        So what a caller costs does not depend on how many callers there are: most of them do little each.
        """
        if not self._is_of_refill(self.unsettled, now_s):
            return False
        self.unsettled, self._settled_at_s = 0.0, now_s
        return True

    def _is_of_refill(self, spent: float, now_s: float) -> bool:
        """Return whether ``spent`` is within this process's share of the tokens that came since it last settled.

        Below 0, tokens were given back that Redis has counted as spent: that it must be told.
        """
        since_s = now_s - self._settled_at_s
        # What came into a full bucket is lost: after a pause, too, processes share one burst.
        came_in = min(self.limit.per_s * since_s, self.limit.burst)
        return since_s < math.inf and 0 <= spent <= SHARE * came_in

    def begin_settling(self, cost: float = 0.0, needed: float = -math.inf) -> Charge:
        """Return the charge that settles what was spent, and takes ``cost`` if ``needed`` tokens are there then."""
        spent, self.unsettled = self.unsettled, 0.0
        needed = max(needed, -1e9)  # Lua reads no infinity
        return Charge(f"{self.limit_class}:{self.caller}", self.limit.per_s, self.limit.burst, spent, cost, needed)

    def settle(self, tokens: float, now_s: float) -> None:
        """Take over the level in Redis; what was spent while it was asked for is not in it yet."""
        self.tokens, self._at_s = tokens - self.unsettled, now_s
        self._settled_tokens, self._settled_at_s = tokens, now_s

    def wait_s(self, needed: float) -> float:
        """Return how long it takes until ``needed`` tokens are there, from the last use on."""
        return max(needed - self.tokens, 0.0) / self.limit.per_s
