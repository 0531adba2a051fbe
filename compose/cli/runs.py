"""``bucketd runs show``: one run as its operator or the author of an agent wants to see it, with tracebacks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import orjson

from compose.cli import console
from compose.operator_error import OperatorError
from compose.stack_connection import open_services
from shared.domain.attempt_failure import AttemptFailure
from shared.domain.execution import LOG_LINES_MAX, Execution, ExecutionRecord, LogPageQuery, Step
from shared.errors import BucketError
from shared.timestamps import format_rfc3339

_LINES_DEFAULT: Final = 50


@click.group()
def runs() -> None:
    """Look at runs, with what no caller sees: the tracebacks of agents."""


@runs.command()
@click.argument("execution_id", metavar="ID")
@click.option(
    "--lines",
    type=click.IntRange(0, LOG_LINES_MAX),
    default=_LINES_DEFAULT,
    show_default=True,
    help="Newest log lines.",
)
@console.data_option
def show(execution_id: str, *, lines: int, data: Path) -> None:
    """Show run ID: its status, its steps, their errors, the tracebacks of failed attempts, and log lines."""
    try:
        with open_services(data) as services:
            page = LogPageQuery(limit=max(lines, 1))
            record = services.store.read(None, execution_id, outputs=(), page=page)
            failures = services.failures.list_all(None, execution_id)
        if record is None:
            raise OperatorError(f"run {execution_id!r} was not found", fix="GET /executions lists the runs there are")
    except BucketError as error:
        fix = error.fix if isinstance(error, OperatorError) else "bucketd doctor checks the servers"
        console.print_failure("runs show", OperatorError(error.message, fix=fix))
        sys.exit(1)
    for line in _format_run(record, failures, lines):
        console.say(line)


def _format_run(record: ExecutionRecord, failures: Sequence[AttemptFailure], lines: int) -> Iterator[str]:
    execution = record.execution
    yield f"{execution.id}  {execution.status}  {execution.basket.name}"
    yield from (f"  {name:<10} {value}" for name, value in _fields_of(execution) if value)
    for step in execution.steps.values():
        yield from _format_step(step)
        for failure in failures:
            if failure.step == step.id:
                moment = format_rfc3339(failure.at)
                yield f"    attempt {failure.attempt} failed at {moment} with {failure.error_code}"
                yield from (f"      {line}" for line in failure.traceback.splitlines())
    events = record.events[len(record.events) - lines :] if lines < len(record.events) else record.events
    if lines and events:
        yield f"  log: {len(events)} of {record.lines_total} lines"
        for event in events:
            data = "" if event.data == b"{}" else f"  {orjson.dumps(orjson.loads(event.data)).decode()}"
            yield f"    {format_rfc3339(event.at)} {event.level:<7} {event.step or '-'}: {event.message}{data}"


def _fields_of(execution: Execution) -> Iterator[tuple[str, str | None]]:
    yield "integrator", execution.integrator
    yield "created", format_rfc3339(execution.created_at)
    yield "started", format_rfc3339(execution.started_at)
    yield "finished", format_rfc3339(execution.finished_at)
    yield "retry of", execution.retry_of
    yield "error", None if execution.error is None else f"{execution.error.error_code}: {execution.error.message}"


def _format_step(step: Step) -> Iterator[str]:
    took = "" if step.duration_ms is None else f", {step.duration_ms} ms"
    yield f"  step {step.id}  {step.status}  agent {step.agent}, {step.claims} attempts{took}"
    if step.error is not None:
        yield f"    {step.error.error_code} ({step.error.kind}): {step.error.message}"
