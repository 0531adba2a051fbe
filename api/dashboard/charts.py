"""The small charts of the overview: a bar for each minute of the last hour, by the series of GET /executions/stats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api.dashboard.timeline import format_duration

_HEIGHT: Final = 100.0
_STEP: Final = 10
_ENDS: Final = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Part:
    """One rectangle of a bar; ``y`` and ``height`` are of 100, from the top."""

    kind: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of one minute; ``text`` says its figures."""

    x: int
    parts: Sequence[Part]
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars, what their full height is, and a sentence for who cannot see them; ``top`` is empty without any."""

    bars: Sequence[Bar]
    top: str
    text: str
    width: int


def throughput_chart(series: Sequence[Mapping[str, Any]]) -> Chart:
    """Return how many runs ended in each minute, how they ended stacked."""
    most = max((_ended(slot) for slot in series), default=0)
    bars = []
    for x, slot in _placed(series):
        counts = {kind: slot[kind] for kind in _ENDS if slot[kind]}
        y, parts = _HEIGHT, []
        for kind, count in counts.items():
            height = _HEIGHT * count / most
            y -= height
            parts.append(Part(kind, round(y, 1), round(height, 1)))
        if parts:
            said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            bars.append(Bar(x, parts, f"{_clock(slot)}: {said}"))
    total = sum(map(_ended, series))
    text = f"{total} {'run' if total == 1 else 'runs'} ended, at most {most} in a minute" if total else "No run ended"
    return Chart(bars, f"{most} a minute" if most else "", text, _width(series))


def latency_chart(series: Sequence[Mapping[str, Any]]) -> Chart:
    """Return how long the runs took that ended in each minute: the median in front of the 95th percentile."""
    longest = max((slot["duration_ms"]["p95"] or 0 for slot in series), default=0)
    bars = []
    for x, slot in _placed(series):
        took = slot["duration_ms"]
        if took["p95"] is None:
            continue
        parts = [_column(share, took[share] / longest) for share in ("p95", "p50")]
        shares = ", ".join(f"{share[1:]} % within {format_duration(took[share] / 1_000)}" for share in ("p50", "p95"))
        bars.append(Bar(x, parts, f"{_clock(slot)}: {shares}"))
    top = format_duration(longest / 1_000) if bars else ""
    text = f"95 % of the runs of a minute took at most {top}" if bars else "No run ended"
    return Chart(bars, top, text, _width(series))


def _column(kind: str, share: float) -> Part:
    height = max(share * _HEIGHT, 1.0)
    return Part(kind, round(_HEIGHT - height, 1), round(height, 1))


def _placed(series: Sequence[Mapping[str, Any]]) -> Sequence[tuple[int, Mapping[str, Any]]]:
    return [(number * _STEP, slot) for number, slot in enumerate(series)]


def _width(series: Sequence[Mapping[str, Any]]) -> int:
    return max(len(series), 1) * _STEP


def _ended(slot: Mapping[str, Any]) -> int:
    return sum(slot[kind] for kind in _ENDS)


def _clock(slot: Mapping[str, Any]) -> str:
    return f"{slot['at'][11:16]} UTC"
