"""Decides whether a failed call is repeated, and after which wait: classes of failure, attempts, budget, time left."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from worker.gateway.gateway_errors import GatewayError

RETRIED_KINDS: Final = frozenset({"network", "timeout", "rate_limited", "server_error"})
WAIT_MAX_S: Final = 30.0
"""A provider that asks for a longer wait is not waited for: the step's own retry comes later."""


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """How often a call is made at most, and the waits: a random part of ``wait_s``, doubled each time."""

    attempts: int
    wait_s: float
    wait_max_s: float


NORMAL: Final = RetrySchedule(attempts=3, wait_s=0.5, wait_max_s=8.0)
CRITICAL: Final = RetrySchedule(attempts=5, wait_s=0.25, wait_max_s=8.0)
NO_RETRIES: Final = RetrySchedule(attempts=1, wait_s=0.0, wait_max_s=0.0)


class Retries:
    """The repeats of one call.

    The wait is made by the caller before the next attempt, and not by stamina: a cancelled step must end it.
    """

    def __init__(
        self,
        policy: RetrySchedule,
        remaining_s: Callable[[], float],
        log: Callable[..., None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """``remaining_s`` returns the seconds that the step has left; ``draw`` returns a number from 0 to 1."""
        self._policy = policy
        self._remaining_s = remaining_s
        self._log = log
        self._draw = draw
        self.attempt = 0
        self.wait_s = 0.0
        self.may_retry = False

    @property
    def attempts_max(self) -> int:
        """How often the call is made at most."""
        return self._policy.attempts

    def begin(self) -> float:
        """Begin the next attempt, and return the wait before it; no repeat follows unless its report allows one."""
        self.attempt += 1
        self.may_retry = False
        return self.wait_s

    def plan(self, error: GatewayError) -> bool:
        """Return whether the current attempt's ``error`` is worth another, and remember the wait before that.

        Whether there is another says the provider's budget: the caller sets ``may_retry``.
        """
        if error.kind not in RETRIED_KINDS or self.attempt >= self._policy.attempts:
            return False
        # Full jitter: callers that failed together do not come back together.
        wait_s = self._draw() * min(self._policy.wait_s * 2 ** (self.attempt - 1), self._policy.wait_max_s)
        self.wait_s = wait_s + (error.retry_after_s or 0.0)
        return self.wait_s <= WAIT_MAX_S and self.wait_s < self._remaining_s()

    def decide(self, error: GatewayError) -> bool:
        """Return whether another attempt follows ``error``, and say so in the run's log."""
        if not self.may_retry:
            return False
        self._log(
            f"the call is repeated in {self.wait_s:.2f} s: {error.text}",
            level="warning",
            provider=error.provider,
            reason=error.kind,
            status=error.status,
            attempt=self.attempt,
            wait_s=round(self.wait_s, 3),
        )
        return True
