"""Remembers baskets between submits, so that a submit asks MongoDB once and not twice.

What is remembered counts only while Redis says, ten times a second, that no basket was deleted since. Whoever deletes
one changes the mark in Redis and answers once every process has had the time to see it, so that no submit which
follows the answer runs what was deleted. Word in Redis may be lost, and a mark with it: so nothing is remembered for
long.
"""

from __future__ import annotations

import threading
import time
from typing import Final

import redis
import structlog

from api.definition import basket_of
from shared.bootstrap import Services
from shared.domain.basket import Basket
from shared.domain.execution import PUBLIC
from shared.ids import new_token
from shared.live.pulse import BASKETS_MARK, FRESH_S, Pulse
from shared.store.clock import since_boot

_REMEMBERED_MAX: Final = 1_000
_SEEN_BY_ALL_S: Final = FRESH_S + 0.05
REMEMBERED_S: Final = 2.0
"""How long a deleted basket may be run where no process heard of it: the deletion's answer was lost, or Redis away."""


class KnownBaskets:
    """One process's memory of baskets, as graphs of steps."""

    def __init__(self, services: Services, pulse: Pulse) -> None:
        self._services = services
        self._pulse = pulse
        self._lock = threading.Lock()
        self._known: dict[str, tuple[bytes | None, float, Basket]] = {}

    def get(self, name: str) -> Basket:
        """Answer a basket by its name; raises BasketNotFound, or AgentNotFound for an agent that is gone."""
        look, now = self._pulse.last, since_boot()
        counts = look.connected and now - look.at < FRESH_S
        known = self._known.get(name) if counts else None
        if known is not None and known[0] == look.baskets_mark and now - known[1] < REMEMBERED_S:
            return known[2]
        basket = basket_of(self._services.baskets.get(PUBLIC, name), self._services.catalogue)
        if counts:
            with self._lock:
                if len(self._known) >= _REMEMBERED_MAX:
                    self._known.clear()
                # Under the mark that was seen before the read: one that changes meanwhile makes it count for nothing.
                self._known[name] = (look.baskets_mark, now, basket)
        return basket

    def tell_deleted(self) -> None:
        """Tell every process that a basket was deleted, and wait until all have had the time to see it."""
        seen_by_all_s = _SEEN_BY_ALL_S
        try:
            self._services.redis.set(BASKETS_MARK, new_token())
        except redis.RedisError as away:
            structlog.get_logger().warning("Redis was not told that a basket was deleted", reason=str(away))
            seen_by_all_s = REMEMBERED_S
        time.sleep(seen_by_all_s)
