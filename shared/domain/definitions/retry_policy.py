"""When a failed step is tried again: policies as data, and the one decision that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Final

from shared.errors import SpecError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a step is tried, and how long it rests between: ``wait_s`` times ``factor`` each time, to a maximum.

    All rests of a step together take at most ``budget_s``.
    """

    attempts: int = 3
    wait_s: float = 1.0
    factor: float = 2.0
    wait_max_s: float = 30.0
    budget_s: float = 60.0

    def delay_after(self, failures: int, waited: timedelta, jitter: float) -> timedelta | None:
        """Answer how long to rest after the ``failures``-th failure; None where it was the last attempt.

        Full jitter: ``chance``, from 0 to 1, is the part of the whole wait that is taken, so that steps which
        failed together do not come back together. ``waited`` is the sum of the rests so far.
        """
        if failures >= self.attempts:
            return None
        whole_s = min(self.wait_s * self.factor ** (failures - 1), self.wait_max_s)
        rest = timedelta(milliseconds=int(whole_s * jitter * 1_000))
        return None if waited + rest > timedelta(seconds=self.budget_s) else rest


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
    """Answer the policy that ``raw`` names, or writes: an object of some of the policy's fields.

    Raises SpecError with every fault: an unknown name or field, a value that is no number or out of its bounds.
    """
    if isinstance(raw, str):
        if raw not in NAMED_RETRY_POLICIES:
            raise SpecError(f"retry is {raw!r}; it must be {', '.join(NAMED_RETRY_POLICIES)} or an object")
        return NAMED_RETRY_POLICIES[raw]
    if not isinstance(raw, Mapping):
        raise SpecError(f"retry must be {', '.join(NAMED_RETRY_POLICIES)} or an object")
    known = {field.name for field in fields(RetryPolicy)}
    faults = [f"retry.{name} is not known; there are {', '.join(sorted(known))}" for name in raw if name not in known]
    for name in known & set(raw):
        least, most = RETRY_POLICY_LIMITS[name]
        value = raw[name]
        whole = name != "attempts" or isinstance(value, int)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most or not whole:
            faults.append(f"retry.{name} must be a number from {least} to {most}")
    if faults:
        raise SpecError("; ".join(sorted(faults)))
    return RetryPolicy(**dict(raw))
