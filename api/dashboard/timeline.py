"""The timeline of a run: what each step did when, from the view of its poll."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.domain.status import StepStatus

_ENDS: Final[Mapping[str, str]] = {
    "step.completed": "completed",
    "step.failed": "failed",
    "step.cancelled": "cancelled",
    "step.retrying": "retried",
    "step.released": "released",
    "step.worker_lost": "lost",
}
"""What the end of an attempt is called, by the event that ends it."""
_WAITING: Final = frozenset({StepStatus.WAITING, StepStatus.READY})
_WIDTH: Final = 1_000.0
_WIDTH_MIN: Final = 4.0


@dataclass(frozen=True, slots=True)
class Span:
    """One bar: ``kind`` is ``waiting``, ``running`` or how an attempt ended; ``x`` and ``width`` are of 1,000."""

    kind: str
    text: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class StepTimeline:
    """The bars of one step, oldest first."""

    step: Mapping[str, Any]
    spans: Sequence[Span]


def build_timeline(view: Mapping[str, Any], now: datetime) -> Sequence[StepTimeline]:
    """Return the timelines of the steps of a run, from the first moment to its end, or to ``now``."""
    began_at = _time(view["created_at"])
    ended_at = max(_time(view["finished_at"]) if view["finished_at"] else now, began_at)
    total_s = max((ended_at - began_at).total_seconds(), 0.001)

    def span(kind: str, text: str, start: datetime, end: datetime) -> Span:
        x = min(max((start - began_at).total_seconds() / total_s, 0.0), 1.0) * _WIDTH
        width = max((end - start).total_seconds() / total_s * _WIDTH, _WIDTH_MIN)
        x = min(x, _WIDTH - _WIDTH_MIN)
        took = format_duration((end - start).total_seconds())
        return Span(kind, f"{text}, {took}", round(x, 1), round(min(width, _WIDTH - x), 1))

    lines: dict[str, list[Mapping[str, Any]]] = {}
    for line in view.get("logs", ()):
        if line["step"] is not None and line["event"].startswith("step."):
            lines.setdefault(line["step"], []).append(line)
    timelines = []
    for step in view.get("steps", ()):
        spans = [span(*bar) for bar in _bars(lines.get(step["step"], ()), began_at, ended_at, step["status"])]
        timelines.append(StepTimeline(step, spans))
    return timelines


def _bars(
    lines: Sequence[Mapping[str, Any]], began_at: datetime, ended_at: datetime, status: str
) -> Iterator[tuple[str, str, datetime, datetime]]:
    since, attempt = began_at, 0
    is_running = False
    for line in lines:
        at = _time(line["timestamp"])
        if line["event"] == "step.started":
            if is_running:  # its end was not logged, or is older than the newest lines
                yield "lost", f"attempt {attempt}", since, at
            elif attempt or at > since:
                yield "waiting", "waited", since, at
            since, is_running, attempt = at, True, line["data"].get("attempt", attempt + 1)
        elif line["event"] in _ENDS:
            kind = _ENDS[line["event"]]
            if is_running or kind != "cancelled":
                yield kind, f"attempt {attempt} {kind}", since, at
            since, is_running = at, False
    if is_running:
        yield "running", f"attempt {attempt} runs", since, ended_at
    elif status in _WAITING and ended_at > since:
        yield "waiting", "waits", since, ended_at


def format_duration(seconds: float) -> str:
    """Return a duration as people write it: 12 ms, 3.4 s, 2 min 5 s, 1 h 2 min."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1_000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
