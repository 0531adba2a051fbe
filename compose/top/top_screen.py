"""The lines that ``bucketd top`` shows of a snapshot; what runs or agents wrote cannot control the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

STEPS_SHOWN: Final = 3
_MESSAGE_MAX_CHARS: Final = 100
_WINDOWS: Final = ("5m", "1h", "24h")


def format_snapshot(snapshot: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a snapshot; a part that did not reply says so, and shows no figures of before."""
    health = snapshot["health"]
    yield f"Bucket is {health.get('status', 'unknown')}   {snapshot['at']}"
    yield from (f"  ! {_printable(reason)}" for reason in health.get("reasons", ()))
    yield ""
    yield from _section(snapshot["stats"], "queues", _format_queues)
    yield ""
    yield from _section(snapshot["workers"], "workers", _format_workers)
    yield ""
    yield from _section(snapshot["failures"], "newest failures", _format_failures)


def _section(part: Mapping[str, Any], title: str, format_part: Any) -> Iterator[str]:
    if "error_code" in part:
        yield f"{title.upper()}: {_printable(part['detail'])}"
    else:
        yield from format_part(part)


def _format_queues(stats: Mapping[str, Any]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("QUEUE", "QUEUED", "RUNNING", "OLDEST", "WORKERS", "SLOTS", "WANTED")]
    for name, queue in stats["queues"].items():
        age = "-" if queue["oldest_age_s"] is None else f"{queue['oldest_age_s']:.0f} s"
        figures = (queue[key] for key in ("workers", "slots", "wanted_workers"))
        rows.append((name, str(queue["queued"]), str(queue["running"]), age, *map(str, figures)))
    yield from _table(rows)
    yield ""
    rows_of_windows: list[tuple[str, ...]] = [
        ("LAST", "SUBMITTED", "COMPLETED", "FAILED", "CANCELLED", "P50", "P95", "P99")
    ]
    for name in _WINDOWS:
        window = stats["windows"][name]
        counts = (str(window[key]) for key in ("submitted", "completed", "failed", "cancelled"))
        durations = (_ms(window["duration_ms"][key]) for key in ("p50", "p95", "p99"))
        rows_of_windows.append((name, *counts, *durations))
    yield from _table(rows_of_windows)


def _format_workers(fleet: Mapping[str, Any]) -> Iterator[str]:
    rows = [("WORKER", "QUEUES", "BUSY", "RUNS")]
    for worker in fleet["workers"]:
        queues = "?" if worker["queues"] is None else ",".join(worker["queues"])
        busy = "?" if worker["slots"] is None else f"{worker['slots_busy']}/{worker['slots']}"
        running = [f"{each['agent']} ({each['execution_id']})" for each in worker["running"]]
        more = f" and {len(running) - STEPS_SHOWN} more" if len(running) > STEPS_SHOWN else ""
        rows.append((worker["id"], queues, busy, ", ".join(running[:STEPS_SHOWN]) + more or "-"))
    yield from _table(rows)
    if not fleet["workers"]:
        yield "no worker is there"
    for reconciler in fleet["reconcilers"]:
        yield f"reconciler {_printable(reconciler['id'])}{' (leads)' if reconciler['leading'] else ''}"
    if not fleet["reconcilers"]:
        yield "no reconciler is there"


def _format_failures(page: Mapping[str, Any]) -> Iterator[str]:
    yield "NEWEST FAILURES"
    for run in page["executions"]:
        error = run["error"] or {"error_code": "-", "message": ""}
        yield _printable(f"{run['execution_id']}  {run['finished_at']}  {run['basket_name']}  {error['error_code']}")
        yield f"    {_printable(error['message'])[:_MESSAGE_MAX_CHARS]}"
    if not page["executions"]:
        yield "none"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows with columns of equal width; the last column ends where it ends."""
    texts = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _printable(text: Iterable[str]) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
