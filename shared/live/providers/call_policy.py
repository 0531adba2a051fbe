"""The limits of calls to a provider, and the words in which a breaker and its callers speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "error", "timeout", "abandoned"]
"""What a call says about its provider; ``abandoned``: nothing, because the call itself was stopped."""


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """When the circuit of a provider opens, how many repeats it gets, and how many calls a second.

    Rates are counted over a sliding window: the current window of ``window_s`` and the fading rest of the one before.
    The circuit opens after ``failures_max`` failures in a row, or, from ``calls_min`` calls on, if the share of
    failures or of timeouts reaches its rate. It stays open for ``cooldown_s``, twice as long after each failed probe,
    at most ``cooldown_max_s``. Repeats are at most ``retry_ratio`` of the calls, but ``retries_min`` in any window;
    critical and other calls have budgets of their own. ``rate`` is calls a second; None for no limit.
    """

    window_s: float = 30.0
    failures_max: int = 5
    calls_min: int = 10
    error_rate: float = 0.5
    timeout_rate: float = 0.3
    cooldown_s: float = 5.0
    cooldown_max_s: float = 60.0
    retry_ratio: float = 0.2
    retries_min: int = 10
    rate: float | None = None
    slot_wait_max_s: float = 2.0


@dataclass(frozen=True, slots=True)
class CallPermit:
    """Whether a call may be made; ``wait_s`` is the wait before it, or else until another call may succeed.

    ``probe`` is the token of the one call that tries a provider whose circuit is open, else empty.
    """

    refusal: Literal["", "circuit_open", "rate_limit_local"] = ""
    wait_s: float = 0.0
    probe: str = ""


@dataclass(frozen=True, slots=True)
class CallReport:
    """What became of an admitted call; ``wants_retry``: it would be repeated if the budget allows."""

    provider: str
    outcome: Outcome
    is_critical: bool = False
    is_repeat: bool = False
    wants_retry: bool = False
    probe: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a report: whether the call may be repeated, and whether the circuit has opened or closed."""

    may_retry: bool = False
    change: Literal["", "opened", "closed"] = ""
