"""Retry policy of steps: exponential back-off with full jitter and a budget, as data, and the rule that applies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from shared.errors import SpecError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The attempts of a step, and the delays between: ``wait_s``, times ``factor`` each time, at most ``wait_max_s``.

    The sum of all delays of a step is at most ``budget_s``.
    """

    attempts: int = 3
    wait_s: float = 1.0
    factor: float = 2.0
    wait_max_s: float = 30.0
    budget_s: float = 60.0

    def delay_after(self, failures: int, waited: timedelta, jitter: float) -> timedelta | None:
        """Return the back-off delay after the ``failures``-th failure; None if there is no further attempt.

        Full jitter: ``jitter``, from 0 to 1, is the part of the full wait that is used, so that steps which
        failed together do not come back together. ``waited`` is the sum of the delays so far.
        """
        if failures >= self.attempts:
            return None
        full_wait_s = min(self.wait_s * self.factor ** (failures - 1), self.wait_max_s)
        delay = timedelta(milliseconds=int(full_wait_s * jitter * 1_000))
        return None if waited + delay > timedelta(seconds=self.budget_s) else delay


DEFAULT_RETRY_POLICY: Final = RetryPolicy()
NAMED_RETRY_POLICIES: Final[Mapping[str, RetryPolicy]] = {
    "default": DEFAULT_RETRY_POLICY,
    "critical": RetryPolicy(attempts=5, wait_s=0.5, factor=1.5, wait_max_s=10.0),
    "none": RetryPolicy(attempts=1),
}

RETRY_POLICY_LIMITS: Final = {
    "attempts": (1, 100),
    "wait_s": (0, 86_400),
    "factor": (1, 10),
    "wait_max_s": (0, 86_400),
    "budget_s": (0, 604_800),
}


def parse_retry_policy(raw: str | Mapping[str, Any]) -> RetryPolicy:
    """Parse a retry policy: the name of one, or an object with some of the policy's fields.

    Raises SpecError with every fault: an unknown name or field, a value that is not a number or is out of its limits.
    """
    if isinstance(raw, str):
        if raw not in NAMED_RETRY_POLICIES:
            raise SpecError(f"retry is {raw!r}; it must be {', '.join(NAMED_RETRY_POLICIES)} or an object")
        return NAMED_RETRY_POLICIES[raw]
    if not isinstance(raw, Mapping):
        raise SpecError(f"retry must be {', '.join(NAMED_RETRY_POLICIES)} or an object")
    known = ", ".join(sorted(RETRY_POLICY_LIMITS))
    faults = [f"retry.{name} is not known; there are {known}" for name in raw if name not in RETRY_POLICY_LIMITS]
    for name in RETRY_POLICY_LIMITS.keys() & raw.keys():
        minimum, maximum = RETRY_POLICY_LIMITS[name]
        value = raw[name]
        is_number = isinstance(value, int if name == "attempts" else int | float) and not isinstance(value, bool)
        if not is_number or not minimum <= value <= maximum:
            faults.append(f"retry.{name} must be a number from {minimum} to {maximum}")
    if faults:
        raise SpecError("; ".join(sorted(faults)))
    return RetryPolicy(**raw)
