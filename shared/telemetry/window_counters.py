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
from datetime import datetime
from typing import Final

import redis

ALL_INTEGRATORS: Final = ""
_MINUTE_S: Final = 60
_QUARTER_S: Final = 900
WINDOW_PREFIX: Final = "metrics:window:"
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
    """The sums of one window; ``durations`` has the number of runs by bucket."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    durations: Counter[int] = field(default_factory=Counter)

    def percentile_ms(self, share: float) -> int | None:
        """Return the duration that ``share`` of the runs did not exceed, in milliseconds; None without any."""
        remaining = math.ceil(share * self.durations.total())
        for bucket in sorted(self.durations):
            remaining -= self.durations[bucket]
            if remaining <= 0:
                return round(2 ** ((bucket - 0.5) / _BUCKETS_PER_DOUBLING))
        return None


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


def read_windows(client: redis.Redis, integrator: str | None, now: datetime) -> Mapping[str, WindowCounts]:
    """Return the sums of each window for an integrator, or for all (None), in one round trip. Raises RedisError."""
    seconds = int(now.timestamp())
    slots = {
        tier: range(seconds // length_s, seconds // length_s - slots_max - 1, -1)
        for tier, length_s, slots_max in (("m", _MINUTE_S, 60), ("q", _QUARTER_S, 96))
    }
    pipe = client.pipeline(transaction=False)
    for tier, numbers in slots.items():
        for number in numbers:
            pipe.hgetall(_key(tier, integrator or ALL_INTEGRATORS, number))
    replies: Sequence[Mapping[bytes, bytes]] = pipe.execute()
    hashes = {"m": replies[: len(slots["m"])], "q": replies[len(slots["m"]) :]}
    return {name: _sum(hashes[tier][: before + 1]) for name, (tier, before) in WINDOWS.items()}


def _sum(hashes: Iterable[Mapping[bytes, bytes]]) -> WindowCounts:
    totals: Counter[str] = Counter()
    for stored in hashes:
        for raw, value in stored.items():
            if value.isdigit():
                totals[raw.decode("utf-8", "replace")] += int(value)
    window = WindowCounts()
    for name, count in totals.items():
        if name.startswith(_CODE_PREFIX):
            window.failures[name.removeprefix(_CODE_PREFIX)] += count
        elif name.startswith(_DURATION_PREFIX) and name[1:].isdigit():
            window.durations[int(name[1:])] += count
        else:
            window.counts[name] += count
    return window


def _bucket_of(duration_s: float) -> int:
    return math.ceil(_BUCKETS_PER_DOUBLING * math.log2(max(duration_s * 1_000, 1.0)))


def _key(tier: str, integrator: str, slot: int) -> str:
    return f"{WINDOW_PREFIX}{tier}:{integrator}:{slot}"
