"""Rate limiter: takes each request of an authenticated caller from a token bucket, and refuses it if that is empty.

The buckets are in Redis, but a request mostly finds what it needs in this process: a background thread settles what
was spent, unless it is within this process's share of the refill. Only a submit, a list or a request of an admin asks
Redis itself, once, if its bucket is nearly empty. Without Redis nothing is limited.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Final

import redis
import structlog

from api.limits.hint_memory import HintMemory
from api.limits.token_bucket import TokenBucket
from shared.clock import boottime_s
from shared.domain.access.caller import Caller
from shared.errors import RateLimited
from shared.limits import LimitClass, RateLimits
from shared.live.shared_buckets import SharedBuckets
from shared.telemetry import request_metrics

SETTLE_EVERY_S: Final = 0.25
CACHED_MAX: Final = 40_000
_SETTLED_AT_ONCE: Final = 200
_ADVICE: Final = {
    LimitClass.SUBMIT: "send several runs in one POST /run-basket/batch, and more slowly",
    LimitClass.POLL: "poll each run no earlier than its poll_after_ms, which is never limited, or read the feed",
    LimitClass.LIST: "read fewer pages, of up to 500 rows, or the feed",
    LimitClass.ADMIN: "send fewer requests",
}


class RateLimiter:
    """The token buckets of the callers of one process, and what it remembers of their polls."""

    def __init__(
        self,
        limits: RateLimits,
        buckets: SharedBuckets,
        is_connected: Callable[[], bool],
        now_or_none: Callable[[], datetime | None],
    ) -> None:
        """``is_connected`` returns whether Redis is there, ``now_or_none`` the store's time; neither asks a server."""
        self.now_or_none = now_or_none
        self._limits = limits
        self._shared = buckets
        self._is_connected = is_connected
        self._lock = threading.Lock()
        self._buckets: dict[tuple[LimitClass, str], TokenBucket] = {}
        self._to_settle: list[TokenBucket] = []
        self._is_open = False
        self.hints = HintMemory()

    def bucket_of(self, caller: Caller, limit_class: LimitClass) -> TokenBucket | None:
        """Return the bucket of a caller for a class of routes; None if the class has no limit."""
        name = caller.subject if caller.key_id is not None else _name_of_token(caller)
        bucket = self._buckets.get((limit_class, name))
        if bucket is None and (limit := self._limits.get(limit_class)) is not None:
            bucket = self._buckets.setdefault((limit_class, name), TokenBucket(limit_class, name, limit))
        return bucket

    def take(self, bucket: TokenBucket, cost: int = 1, *, already_taken: int = 0) -> None:
        """Take tokens for a request that costs ``cost``, or raise RateLimited.

        If it costs more than the bucket holds, a full bucket is enough, and the rest is owed. ``already_taken`` of the
        cost were taken before; they are given back if the request is refused.
        """
        needed = min(cost, bucket.limit.burst) - already_taken
        cost -= already_taken
        if not self._applies():
            return
        now_s = boottime_s()
        with self._lock:
            is_short = bucket.level(now_s) < needed
            if not is_short and not bucket.must_settle(cost, now_s):
                self._spend(bucket, cost, now_s)
                return
            charge = None if is_short else bucket.begin_settling(cost, needed)
        if charge is not None:
            try:
                [reply] = self._shared.charge([charge])
            except redis.RedisError:
                self._fail_open()
                return
            with self._lock:
                bucket.settle(reply.tokens, boottime_s())
            if reply.is_taken:
                return
        refusal = self._refusal(bucket, needed)
        if already_taken:
            with self._lock:
                self._spend(bucket, -already_taken, now_s)
        raise refusal

    def check_poll(self, bucket: TokenBucket, now_s: float) -> None:
        """Raise RateLimited if the bucket of polls is empty, as far as this process knows."""
        if bucket.level(now_s) < 1 and self._applies():
            raise self._refusal(bucket, 1)

    def charge_poll(self, bucket: TokenBucket, now_s: float) -> None:
        """Take one token for a poll that was answered."""
        if self._applies():
            with self._lock:
                self._spend(bucket, 1, now_s)

    def settle(self) -> None:
        """Settle with Redis what was spent; call it regularly, in one thread. What cannot be settled is forgotten."""
        with self._lock:
            to_settle, self._to_settle, now_s = self._to_settle, [], boottime_s()
            charges = [
                (bucket, bucket.begin_settling())
                for bucket in to_settle
                if bucket.unsettled and not bucket.settles_itself(now_s)
            ]
        if charges and self._is_connected():
            for start in range(0, len(charges), _SETTLED_AT_ONCE):
                batch = charges[start : start + _SETTLED_AT_ONCE]
                try:
                    levels = self._shared.charge([charge for _, charge in batch])
                except redis.RedisError:
                    self._fail_open(0)
                    return
                with self._lock:
                    for (bucket, _), level in zip(batch, levels, strict=True):
                        bucket.settle(level.tokens, boottime_s())
        self._forget_oldest()

    def _spend(self, bucket: TokenBucket, cost: int, now_s: float) -> None:
        if not bucket.unsettled:
            self._to_settle.append(bucket)
        bucket.spend(cost, now_s)

    def _applies(self) -> bool:
        """Return whether limits hold now; without Redis each request that would be counted is let through."""
        if self._is_connected():
            self._is_open = False
            return True
        self._fail_open()
        return False

    def _fail_open(self, requests: int = 1) -> None:
        request_metrics.count_failed_open(requests)
        if not self._is_open:
            self._is_open = True
            structlog.get_logger().warning("Redis is away: no request is limited until it is back")

    def _refusal(self, bucket: TokenBucket, needed: float) -> RateLimited:
        request_metrics.count_refusal(bucket.limit_class)
        wait_s = bucket.wait_s(needed)
        # Callers that were refused together should not come back together.
        jittered_s = wait_s + random.uniform(0, 0.5 + 0.1 * wait_s)  # noqa: S311
        retry_after_s = max(1, math.ceil(jittered_s))
        name, limit = bucket.limit_class, bucket.limit
        return RateLimited(
            f"this key may send {limit.per_s:g} {name} requests a second, {limit.burst} at once, and has sent more; "
            f"nothing was done: send the same again in {retry_after_s} s; to stay below the limit, {_ADVICE[name]}",
            retry_after_s=retry_after_s,
        )

    def _forget_oldest(self) -> None:
        """Drop the oldest buckets if there are very many: what they hold is in Redis too."""
        surplus = len(self._buckets) - CACHED_MAX
        if surplus > 0:
            with self._lock:
                oldest = islice(self._buckets.items(), surplus)
                for key in [key for key, bucket in oldest if not bucket.unsettled]:
                    del self._buckets[key]


def _name_of_token(caller: Caller) -> str:
    """Return a name for the caller of a token: a hash, because its subject may be personal, long or that of a key."""
    subject = f"{caller.integrator}\0{caller.subject}".encode()
    return f"token:{hashlib.blake2b(subject, digest_size=12).hexdigest()}"
