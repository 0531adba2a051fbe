"""Retry policy of steps: exponential back-off with full jitter and a budget, as data, and the rule that applies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from shared.errors import SpecError
from shared.json_pointer import format_pointer
from shared.suggestions import closest_matches


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

    def delay_after(
        self, failures: int, waited: timedelta, jitter: float, at_least: timedelta = timedelta(0)
    ) -> timedelta | None:
        """Return the back-off delay after the ``failures``-th failure; None if there is no further attempt.

        Full jitter: ``jitter``, from 0 to 1, is the part of the full wait that is used, so that steps which
        failed together do not come back together. ``waited`` is the sum of the delays so far. ``at_least`` is what
        the failure asks for, such as a Retry-After; the back-off comes on top of it.
        """
        if failures >= self.attempts:
            return None
        full_wait_s = min(self.wait_s * self.factor ** (failures - 1), self.wait_max_s)
        delay = at_least + timedelta(milliseconds=int(full_wait_s * jitter * 1_000))
        return None if waited + delay > timedelta(seconds=self.budget_s) else delay


_NAME_MAX_CHARS: Final = 64
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

    A field that is null counts as absent. Raises SpecError with every fault, and in its details the JSON pointer of
    each: an unknown name or field, a value that is not a number or is out of its limits.
    """
    if isinstance(raw, str):
        if raw not in NAMED_RETRY_POLICIES:
            raise SpecError(f"retry is {raw!r}; it must be {', '.join(NAMED_RETRY_POLICIES)} or an object")
        return NAMED_RETRY_POLICIES[raw]
    if not isinstance(raw, Mapping):
        raise SpecError(f"retry must be {', '.join(NAMED_RETRY_POLICIES)} or an object")
    given = {name: value for name, value in raw.items() if value is not None}
    faults = {name: _find_fault(name, value) for name, value in sorted(given.items())}
    details = [
        {"pointer": format_pointer([name]), "message": f"retry.{name[:_NAME_MAX_CHARS]} {fault}"}
        for name, fault in faults.items()
        if fault
    ]
    if details:
        raise SpecError("; ".join(detail["message"] for detail in details), details=details)
    return RetryPolicy(**given)


def _find_fault(name: str, value: Any) -> str | None:
    """Return what is wrong with a field of a policy; None if it is right."""
    if name not in RETRY_POLICY_LIMITS:
        nearest = closest_matches(name[:_NAME_MAX_CHARS].lower(), RETRY_POLICY_LIMITS)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(sorted(RETRY_POLICY_LIMITS))}"
        return f"is not known; {hint}"
    minimum, maximum = RETRY_POLICY_LIMITS[name]
    is_number = isinstance(value, int if name == "attempts" else int | float) and not isinstance(value, bool)
    if is_number and minimum <= value <= maximum:
        return None
    return f"must be a {'whole number' if name == 'attempts' else 'number'} from {minimum} to {maximum}"
