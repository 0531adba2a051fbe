"""Whose bucket a request is taken from, and how many a process keeps: none goes that Redis does not know yet."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from api.limits import rate_limiter
from api.limits.rate_limiter import RateLimiter
from shared.clock import boottime_s
from shared.domain.access.caller import Caller, Role
from shared.limits import LimitClass, RateLimit
from shared.live.shared_buckets import BucketLevel, Charge

FEW = RateLimit(1, 10)
CALLERS = [Caller(f"key:{number}", Role.INTEGRATOR, "acme", key_id=str(number)) for number in range(6)]


class Shared:
    """The buckets in Redis; while they are charged, the oldest caller of this process polls again."""

    def __init__(self, limit: RateLimit = FEW) -> None:
        self.charged: list[float] = []
        self.limiter = RateLimiter({LimitClass.POLL: limit}, self, lambda: True, lambda: None)  # type: ignore[arg-type]

    def charge(self, charges: Sequence[Charge]) -> list[BucketLevel]:
        self.charged += [charge.spent for charge in charges]
        bucket = self.limiter.bucket_of(CALLERS[0], LimitClass.POLL)
        assert bucket is not None
        self.limiter.charge_poll(bucket, 0.0)
        return [BucketLevel(is_taken=True, tokens=9.0) for _ in charges]


def test_the_oldest_buckets_are_forgotten_if_redis_knows_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limiter, "CACHED_MAX", 3)
    limiter = Shared().limiter
    buckets = [limiter.bucket_of(caller, LimitClass.POLL) for caller in CALLERS]
    assert buckets[5] is not None
    limiter.charge_poll(buckets[5], 0.0)
    limiter.settle()
    kept = [
        limiter.bucket_of(caller, LimitClass.POLL) is bucket for caller, bucket in zip(CALLERS, buckets, strict=True)
    ]
    assert kept == [True, False, False, True, True, True]


def test_a_token_shares_its_bucket_with_no_key_and_no_other_integrator() -> None:
    limiter = Shared().limiter
    key = Caller("key:1", Role.INTEGRATOR, "acme", key_id="1")
    token = Caller("key:1", Role.INTEGRATOR, "acme")
    elsewhere = Caller("key:1", Role.INTEGRATOR, "zenith")
    buckets = {limiter.bucket_of(caller, LimitClass.POLL) for caller in (key, token, elsewhere)}
    assert len(buckets) == 3
    assert limiter.bucket_of(token, LimitClass.POLL) in buckets
    assert len({bucket.caller for bucket in buckets if bucket is not None}) == 3, "nor in Redis"


def test_a_caller_that_does_little_is_settled_with_redis_once() -> None:
    quick, slow = Shared(RateLimit(1e9, 1_000)), Shared(RateLimit(1e-9, 1_000))
    for shared in (quick, slow):
        bucket = shared.limiter.bucket_of(CALLERS[0], LimitClass.POLL)
        assert bucket is not None
        for _ in range(3):
            shared.limiter.charge_poll(bucket, boottime_s())
            shared.limiter.settle()
    assert quick.charged == [1]
    assert slow.charged == [1, 2, 2], "with what is spent while it is settled"
