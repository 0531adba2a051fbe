"""The circuit breaker, rate limit and retry budget of one process, in memory: what is used while Redis is away.

The rules are those of ``shared/live/providers/circuit_breaker.py``; a test plays the same calls through both.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.live.providers.call_policy import CallPermit, CallPolicy, CallReport, Verdict


@dataclass(slots=True)
class _Window:
    """Counters over a sliding window."""

    number: int = 0
    current: dict[str, float] = field(default_factory=dict)
    previous: dict[str, float] = field(default_factory=dict)

    def roll(self, number: int) -> None:
        if number != self.number:
            self.previous = self.current if number == self.number + 1 else {}
            self.current, self.number = {}, number

    def add(self, name: str) -> None:
        self.current[name] = self.current.get(name, 0) + 1

    def count(self, name: str, previous_weight: float) -> float:
        return self.current.get(name, 0) + self.previous.get(name, 0) * previous_weight


@dataclass(slots=True)
class _Provider:
    window: _Window = field(default_factory=_Window)
    failures: int = 0
    trips: int = 0
    open_until: float | None = None
    probe: str = ""
    probe_until: float = 0.0
    next_slot_at: float = 0.0


class LocalBreaker:
    """Admits calls and learns from their outcomes; one for each process."""

    def __init__(self, policy: CallPolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._now = now
        self._lock = threading.Lock()
        self._providers: dict[str, _Provider] = {}

    def admit(self, provider: str, *, lease_s: float) -> CallPermit:
        """Return whether a call may be made now; a probe must be reported within ``lease_s``, or another follows."""
        with self._lock:
            state, now = self._providers.setdefault(provider, _Provider()), self._now()
            if state.open_until is not None:
                wait_s = max(state.open_until, state.probe_until) - now
                if wait_s > 0:
                    return CallPermit("circuit_open", wait_s)
            wait_s = self._take_slot(state, now)
            if wait_s > self._policy.slot_wait_max_s:
                return CallPermit("rate_limit_local", wait_s)
            if state.open_until is None:
                return CallPermit(wait_s=wait_s)
            state.probe, state.probe_until = secrets.token_hex(8), now + wait_s + lease_s
            return CallPermit(wait_s=wait_s, probe=state.probe)

    def _take_slot(self, state: _Provider, now: float) -> float:
        """Return the wait until the next slot, and take it unless the wait is too long (GCRA, a second's burst)."""
        if self._policy.rate is None:
            return 0.0
        next_slot_at = max(state.next_slot_at, now) + 1 / self._policy.rate
        wait_s = max(next_slot_at - now - max(1.0, 1 / self._policy.rate), 0.0)
        if wait_s <= self._policy.slot_wait_max_s:
            state.next_slot_at = next_slot_at
        return wait_s

    def record(self, report: CallReport) -> Verdict:
        """Learn from an admitted call."""
        with self._lock:
            state, now = self._providers.setdefault(report.provider, _Provider()), self._now()
            if state.open_until is not None:
                return self._record_while_open(state, report, now)
            if report.outcome == "abandoned":
                return Verdict()
            weight = self._count(state, report, now)
            if report.outcome == "ok":
                return Verdict()
            if self._must_open(state.window, state.failures, weight):
                state.trips, state.open_until = 1, now + self._policy.cooldown_s
                return Verdict(change="opened")
            return Verdict(may_retry=self._take_retry(state.window, report, weight))

    def _record_while_open(self, state: _Provider, report: CallReport, now: float) -> Verdict:
        if not report.probe or report.probe != state.probe:
            return Verdict()  # it was under way when the circuit opened
        state.probe, state.probe_until = "", 0.0
        if report.outcome == "ok":
            state.window, state.failures, state.trips, state.open_until = _Window(), 0, 0, None
            return Verdict(change="closed")
        if report.outcome == "abandoned":
            return Verdict()
        state.trips += 1
        cooldown_s = self._policy.cooldown_s * 2 ** min(state.trips - 1, 30)
        state.open_until = now + min(cooldown_s, self._policy.cooldown_max_s)
        return Verdict(change="opened")

    def _count(self, state: _Provider, report: CallReport, now: float) -> float:
        """Count the call; return the weight of the window before."""
        windows = now / self._policy.window_s
        state.window.roll(int(windows))
        state.window.add("calls")
        if not report.is_repeat:
            state.window.add(f"first_{report.is_critical}")
        if report.outcome == "ok":
            state.failures = 0
        else:
            state.failures += 1
            state.window.add("failures")
            if report.outcome == "timeout":
                state.window.add("timeouts")
        return 1 - windows % 1

    def _must_open(self, window: _Window, failures: int, weight: float) -> bool:
        policy = self._policy
        if failures >= policy.failures_max:
            return True
        calls = window.count("calls", weight)
        return calls >= policy.calls_min and (
            window.count("failures", weight) >= policy.error_rate * calls
            or window.count("timeouts", weight) >= policy.timeout_rate * calls
        )

    def _take_retry(self, window: _Window, report: CallReport, weight: float) -> bool:
        if not report.wants_retry:
            return False
        retries = window.count(f"retries_{report.is_critical}", weight)
        calls = window.count(f"first_{report.is_critical}", weight)
        if retries + 1 > max(self._policy.retries_min, self._policy.retry_ratio * calls):
            return False
        window.add(f"retries_{report.is_critical}")
        return True
