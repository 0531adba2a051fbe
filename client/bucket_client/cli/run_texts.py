"""What is said of a run: its times, how long it took, what it waits for, its log lines, why it failed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bucket_client.cli.output import safe
from bucket_client.execution import Execution, LogLine

STATUS_COLOURS: Final = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "running": "cyan",
}
LEVEL_COLOURS: Final = {"error": "red", "warning": "yellow", "debug": "bright_black"}
_A_DAY: Final = timedelta(hours=20)
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def duration_text(seconds: float) -> str:
    """Return a duration as a person reads it: ``40 ms``, ``2.4 s``, ``12 s``, ``3:05`` or ``2:03:05``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004 -- here tenths matter
        return f"{seconds:.1f} s"
    return rough_text(seconds)


def rough_text(seconds: float) -> str:
    """Return a duration that goes on, or an estimate, in whole seconds."""
    whole = max(0, round(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    minutes, left = divmod(whole, _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def local_time(moment: datetime | None, *, short: bool) -> str:
    """Return a time in the time zone of this machine; ``short`` for a table on a terminal."""
    if moment is None:
        return "-"
    local = moment.astimezone()
    if not short:
        return local.isoformat(timespec="milliseconds")
    is_near = abs(datetime.now(UTC) - moment) < _A_DAY
    is_this_year = local.year == datetime.now(UTC).astimezone().year
    return local.strftime("%H:%M:%S" if is_near else "%b %d %H:%M" if is_this_year else "%Y-%m-%d")


def run_duration(execution: Execution) -> str:
    """Return how long a run took, or has run until now."""
    if execution.started_at is None:
        return "-"
    seconds = ((execution.finished_at or datetime.now(UTC)) - execution.started_at).total_seconds()
    return duration_text(max(0.0, seconds))


def percent(execution: Execution) -> int:
    """Return how far a run is, in percent."""
    return execution.progress["percent"] if execution.progress else 0


def end_text(execution: Execution) -> str:
    """Return how a run ended, and how long it took: ``completed in 2.1 s``."""
    took = "" if execution.started_at is None else f" in {run_duration(execution)}"
    return f"{execution.status}{took}"


def stage_text(execution: Execution, since_seen_s: float = 0.0) -> str:
    """Return what a run does now: its step, or what it waits for.

    ``since_seen_s`` is how long ago the server said so; estimates are that much nearer.
    """
    if execution.done:
        return execution.status
    if waiting_for := execution.waiting_for:
        return _waiting_text(execution.status, waiting_for, since_seen_s)
    if execution.current_step is None:
        return execution.status
    progress = execution.progress
    place = f" {progress['steps_completed'] + 1}/{progress['steps_total']}" if progress else ""
    attempt = execution.current_step["attempt"]
    again = f", attempt {attempt}" if attempt > 1 else ""
    return safe(f"{execution.current_step['step']}{place if progress and progress['steps_total'] > 1 else ''}{again}")


def _waiting_text(status: str, waiting_for: Mapping[str, Any], since_seen_s: float) -> str:
    eta_ms, position = waiting_for.get("eta_ms"), waiting_for.get("position")
    left_s = None if eta_ms is None else eta_ms / 1000 - since_seen_s
    soon = "" if left_s is None else f", in about {rough_text(left_s)}" if left_s >= 1 else ", soon"
    match waiting_for.get("reason"):
        case "no_worker":
            return "no worker is there"
        case "queue":
            return f"queued{f', {position} ahead' if position else ''}{soon}"
        case "retry":
            return f"next attempt{soon}"
        case "schedule":
            return f"scheduled{soon}"
    return safe(status)


def remaining_s(execution: Execution, since_started_s: float) -> float | None:
    """Return the expected time until a run is done, from its percent and how long it has run; None if unknown."""
    done = percent(execution)
    if execution.status != "running" or not 0 < done < 100:  # noqa: PLR2004 -- percent
        return None
    return since_started_s * (100 - done) / done


def log_line_text(line: LogLine | Mapping[str, Any], *, short: bool) -> str:
    """Return a line of a log: its time, level, step and message."""
    moment = datetime.fromisoformat(line["timestamp"])
    time = moment.astimezone().strftime("%H:%M:%S") if short else local_time(moment, short=False)
    place = safe(line["step"] or line["agent_name"])
    return f"{time} {safe(line['level']):<7} {place}: {safe(line['message'])}"


def failure_text(execution: Execution) -> str:
    """Return where and why a run failed or was cancelled, on one line."""
    error: Mapping[str, Any] = execution.error or {}
    step = f" in step {error['step']}" if error.get("step") else ""
    attempt = f", attempt {error['attempt']}" if error.get("attempt") and error["attempt"] > 1 else ""
    reason = f": {error.get('error_code')}: {error.get('message')}" if error else ""
    return safe(f"{execution.execution_id} {execution.status}{step}{attempt}{reason}")
