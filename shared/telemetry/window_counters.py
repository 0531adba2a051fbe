"""Counters of the last minutes, the last hour and the last day, in Redis: they outlive every process of Bucket.

Each integrator, and all of them together, has a hash for each minute and one for each quarter of an hour; an old one
expires. Writing them is part of a command that is sent anyway. Durations are counted in a histogram whose buckets grow
by 9 %, so that a percentile is within 5 % of the true one. The minute is that of the event, by the store's clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import redis

ALL_INTEGRATORS: Final = ""
_MINUTE_S: Final = 60
_QUARTER_S: Final = 900
WINDOW_PREFIX: Final = "metrics:window:"
_TIERS: Final = {"m": (_MINUTE_S, 60), "q": (_QUARTER_S, 96)}
"""The seconds of a slot, and how many that are over are read."""
WINDOWS: Final = {"5m": ("m", 5), "1h": ("m", 60), "24h": ("q", 96)}
"""Each window has the slot that is not over and so many before it."""
SUBMITTED: Final = "submitted"
FINAL_STATUSES: Final = ("completed", "failed", "cancelled")
CODES_MAX: Final = 100
_BUCKETS_PER_DOUBLING: Final = 8
_CODE_PREFIX: Final = "f:"
_DURATION_PREFIX: Final = "d"


@dataclass(frozen=True, slots=True)
class RunEvent:
    """What is counted of a run that was accepted (``kind`` is "submitted") or has ended (its final status)."""

    integrator: str
    at: datetime
    kind: str
    duration_s: float | None = None
    error_code: str | None = None


@dataclass(slots=True)
class WindowCounts:
    """The sums of one window or slot; ``durations`` has the number of runs by bucket."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    durations: Counter[int] = field(default_factory=Counter)

    def add(self, other: WindowCounts) -> None:
        """Add the sums of ``other``."""
        self.counts.update(other.counts)
        self.failures.update(other.failures)
        self.durations.update(other.durations)

    def percentile_ms(self, share: float) -> int | None:
        """Return the duration that ``share`` of the runs did not exceed, in milliseconds; None without any."""
        remaining = math.ceil(share * self.durations.total())
        for bucket in sorted(self.durations):
            remaining -= self.durations[bucket]
            if remaining <= 0:
                return round(2 ** ((bucket - 0.5) / _BUCKETS_PER_DOUBLING))
        return None


@dataclass(frozen=True, slots=True)
class Slot:
    """The counts of one minute or quarter of an hour, which began at ``at``."""

    at: datetime
    counted: WindowCounts


@dataclass(frozen=True, slots=True)
class RecentCounts:
    """The slots of each tier, the newest first, which is not over; ``windows`` are their sums."""

    slots: Mapping[str, Sequence[Slot]]
    windows: Mapping[str, WindowCounts]

    def series(self, window: str) -> Sequence[Slot]:
        """Return the slots of a window, the oldest first."""
        tier, before = WINDOWS[window]
        return self.slots[tier][before::-1]


def window_arguments(events: Iterable[RunEvent]) -> list[str | int]:
    """Return the arguments by which a script adds ``events`` to the hashes (``shared/telemetry/fleet_counters.py``).

    They are, for each integrator and minute: its name, the minute, the number of fields, and each field with what is
    added to it.
    """
    groups: dict[tuple[str, int], Counter[str]] = {}
    for event in events:
        fields = groups.setdefault((event.integrator, int(event.at.timestamp()) // _MINUTE_S), Counter())
        fields[event.kind] += 1
        if event.duration_s is not None:
            fields[f"{_DURATION_PREFIX}{_bucket_of(event.duration_s)}"] += 1
        if event.error_code is not None:
            fields[_CODE_PREFIX + event.error_code.encode("utf-8", "replace").decode()[:100]] += 1
    arguments: list[str | int] = []
    for (integrator, minute), fields in groups.items():
        arguments += (integrator, minute, len(fields))
        for pair in fields.items():
            arguments += pair
    return arguments


def read_counts(client: redis.Redis, integrator: str | None, now: datetime) -> RecentCounts:
    """Return what was counted lately for an integrator, or for all (None), in one round trip. Raises RedisError."""
    seconds = int(now.timestamp())
    numbers = [
        (tier, seconds // length_s - age) for tier, (length_s, ages) in _TIERS.items() for age in range(ages + 1)
    ]
    pipe = client.pipeline(transaction=False)
    for tier, number in numbers:
        pipe.hgetall(_key(tier, integrator or ALL_INTEGRATORS, number))
    slots: dict[str, list[Slot]] = {tier: [] for tier in _TIERS}
    for (tier, number), stored in zip(numbers, pipe.execute(), strict=True):
        slots[tier].append(Slot(datetime.fromtimestamp(number * _TIERS[tier][0], UTC), _parse(stored)))
    windows = {name: _sum(slots[tier][: before + 1]) for name, (tier, before) in WINDOWS.items()}
    return RecentCounts(slots, windows)


def _sum(slots: Iterable[Slot]) -> WindowCounts:
    total = WindowCounts()
    for slot in slots:
        total.add(slot.counted)
    return total


def _parse(stored: Mapping[bytes, bytes]) -> WindowCounts:
    counted = WindowCounts()
    for raw, value in stored.items():
        name = raw.decode("utf-8", "replace")
        if not value.isdigit():
            continue
        if name.startswith(_CODE_PREFIX):
            counted.failures[name.removeprefix(_CODE_PREFIX)] += int(value)
        elif name.startswith(_DURATION_PREFIX) and name[1:].isdigit():
            counted.durations[int(name[1:])] += int(value)
        else:
            counted.counts[name] += int(value)
    return counted


def _bucket_of(duration_s: float) -> int:
    return math.ceil(_BUCKETS_PER_DOUBLING * math.log2(max(duration_s * 1_000, 1.0)))


def _key(tier: str, integrator: str, slot: int) -> str:
    return f"{WINDOW_PREFIX}{tier}:{integrator}:{slot}"
