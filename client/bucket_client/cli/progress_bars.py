"""Progress bars on a terminal: of runs (step, percent, elapsed and expected time), and of a map."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from bucket_client.cli.output import Output
from bucket_client.cli.run_texts import percent, remaining_s, rough_text, stage_text
from bucket_client.execution import Execution

_REFRESHES_PER_S: Final = 5
_WIDE: Final = 70
_ID_WIDTH: Final = 28


@dataclass(slots=True)
class _Seen:
    """A run as it was last seen, with the local times that the clock of its bar counts from."""

    execution: Execution | None
    created_at_s: float
    seen_at_s: float
    started_at_s: float | None = None

    def see(self, execution: Execution) -> None:
        now = time.monotonic()
        if self.execution is None:
            self.created_at_s = now - _age_s(execution.created_at)
        if self.started_at_s is None and execution.started_at is not None:
            self.started_at_s = max(self.created_at_s, now - _age_s(execution.started_at))
        self.execution, self.seen_at_s = execution, now


class RunBars:
    """A bar for each of several runs, by their ids."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, tuple[TaskID, _Seen]] = {}

    def add(self, execution_id: str) -> None:
        """Add the bar of a run that was not seen yet."""
        now = time.monotonic()
        seen = _Seen(None, now, now)
        task = self._progress.add_task("", total=100, run=seen, id=execution_id)
        self._bars[execution_id] = (task, seen)

    def show(self, execution: Execution) -> None:
        """Show a run as it stands now."""
        task, seen = self._bars[execution.execution_id]
        seen.see(execution)
        self._progress.update(task, completed=100 if execution.is_completed else percent(execution))


class _StageColumn(ProgressColumn):
    """What the run does now."""

    def render(self, task: Task) -> Text:
        seen: _Seen = task.fields["run"]
        since_seen_s = time.monotonic() - seen.seen_at_s
        return Text("..." if seen.execution is None else stage_text(seen.execution, since_seen_s))


class _ElapsedColumn(ProgressColumn):
    """How long ago the run was submitted."""

    def render(self, task: Task) -> Text:
        seen: _Seen = task.fields["run"]
        until_s = seen.seen_at_s if seen.execution is not None and seen.execution.done else time.monotonic()
        return Text(rough_text(until_s - seen.created_at_s), style="cyan")


class _ExpectedColumn(ProgressColumn):
    """The expected time until the run is done."""

    def render(self, task: Task) -> Text:
        seen: _Seen = task.fields["run"]
        if seen.execution is None or seen.started_at_s is None:
            return Text("")
        left_s = remaining_s(seen.execution, seen.seen_at_s - seen.started_at_s)
        since_seen_s = time.monotonic() - seen.seen_at_s
        return Text("" if left_s is None else f"about {rough_text(left_s - since_seen_s)} left")


class _MapRateColumn(ProgressColumn):
    """How many lines are done in a second, and the expected time until all are."""

    def render(self, task: Task) -> Text:
        rate = "" if task.speed is None else f"{task.speed:.1f}/s"
        left = "" if task.time_remaining is None or task.finished else f" {rough_text(task.time_remaining)} left"
        return Text(rate + left)


@contextmanager
def run_bars(output: Output, *, with_ids: bool) -> Iterator[RunBars]:
    """Draw bars on stderr while the block runs; they are gone at its end."""
    console = output.console(sys.stderr)
    with _progress(console, _run_columns(console.width, with_ids=with_ids)) as progress:
        yield RunBars(progress)


def _run_columns(width: int, *, with_ids: bool) -> list[ProgressColumn]:
    """Return the columns that a terminal of this width has room for."""
    is_narrow = width < _WIDE
    room = width - (_ID_WIDTH if with_ids else 0)
    columns: list[ProgressColumn] = [_text("{task.fields[id]}")] if with_ids else []
    if not with_ids or not is_narrow:
        bar_width = max(6, min(24, room - 64))
        stage_width = max(9, min(34, room - bar_width - (13 if is_narrow else 30)))
        column = Column(no_wrap=True, overflow="ellipsis", max_width=stage_width)
        columns += [_StageColumn(table_column=column), BarColumn(bar_width=bar_width)]
    columns += [_text("{task.percentage:>3.0f}%"), _ElapsedColumn(table_column=Column(no_wrap=True))]
    return columns if is_narrow else [*columns, _ExpectedColumn(table_column=Column(no_wrap=True))]


class MapBar:
    """The bar of a map: lines done, of those failed, the rate and the time that is left."""

    def __init__(self, progress: Progress, total: int, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total, completed=done, failed="")

    def show(self, done: int, failed: int) -> None:
        """Show how far the map is."""
        self._progress.update(self._task, completed=done, failed=f"{failed} failed" if failed else "")


@contextmanager
def map_bar(output: Output, total: int, done: int) -> Iterator[MapBar]:
    """Draw the bar of a map on stderr while the block runs."""
    console = output.console(sys.stderr)
    columns: list[ProgressColumn] = [BarColumn(bar_width=max(6, min(30, console.width - 60)))]
    if console.width < _WIDE:
        columns = []
    failed = TextColumn("{task.fields[failed]}", style="red", markup=False, table_column=Column(no_wrap=True))
    columns += [MofNCompleteColumn(table_column=Column(no_wrap=True)), failed]
    columns.append(_MapRateColumn(table_column=Column(no_wrap=True, overflow="ellipsis")))
    with _progress(console, columns) as progress:
        yield MapBar(progress, total, done)


def _progress(console: Any, columns: list[ProgressColumn]) -> Progress:
    # stdout is not redirected: data that is printed meanwhile goes where it belongs.
    return Progress(
        *columns, console=console, transient=True, redirect_stdout=False, refresh_per_second=_REFRESHES_PER_S
    )


def _text(template: str) -> TextColumn:
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True))


def _age_s(moment: datetime | None) -> float:
    """Return how long ago a time of the server was; clocks that differ never make it negative."""
    return 0.0 if moment is None else max(0.0, (datetime.now(UTC) - moment).total_seconds())
