"""``bucket list``, ``show`` and ``logs``: runs and their logs."""

from __future__ import annotations

import sys
from typing import Any, Literal

import click

from bucket_client.cli.error_report import Interrupted
from bucket_client.cli.output import Column, is_terminal, json_text, safe
from bucket_client.cli.param_types import Moment
from bucket_client.cli.run_texts import (
    LEVEL_COLOURS,
    STATUS_COLOURS,
    duration_text,
    failure_text,
    local_time,
    log_line_text,
    percent,
    run_duration,
    stage_text,
)
from bucket_client.cli.session import Session, SessionCommand, complete_basket, pass_session
from bucket_client.execution import Execution

_STATUSES = ["scheduled", "queued", "running", "cancelling", "completed", "failed", "cancelled"]
_LIST_COLUMNS = [
    Column("id"),
    Column("status", style_of=STATUS_COLOURS),
    Column("%", dropped_at=1, is_number=True),
    Column("basket", dropped_at=2),
    Column("created", dropped_at=3),
    Column("took", dropped_at=4, is_number=True),
]


@click.command("list", cls=SessionCommand)
@click.option("--status", multiple=True, type=click.Choice(_STATUSES), help="In this status; may be repeated.")
@click.option("--basket", metavar="NAME", shell_complete=complete_basket, help="Of this basket.")
@click.option("--tag", metavar="TAG", help="With this tag.")
@click.option("--reference", metavar="TEXT", help="Submitted with this reference.")
@click.option("--request-id", metavar="ID", help="Made by this request.")
@click.option("--retry-of", metavar="ID", help="Retries of this run.")
@click.option("--key", "idempotency_key", metavar="KEY", help="Submitted with this idempotency key.")
@click.option("--created-after", type=Moment(), metavar="TIME", help="Created after a time: 2h (ago), or RFC 3339.")
@click.option("--created-before", type=Moment(), metavar="TIME", help="Created before a time.")
@click.option("--updated-since", type=Moment(), metavar="TIME", help="Changed at a time or later.")
@click.option(
    "--order",
    type=click.Choice(["newest", "oldest", "updated"]),
    default="newest",
    show_default=True,
    help="By time of creation, or changed longest ago first.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--all", "every", is_flag=True, help="All of them, however many.")
@pass_session
def list_runs(
    session: Session,
    /,
    *,
    status: tuple[str, ...],
    order: Literal["newest", "oldest", "updated"],
    limit: int,
    every: bool,
    **filters: Any,
) -> None:
    """List runs, the newest first; all filters must hold.

    With --json each run is one line; with -q each line is an id.
    """
    with session.open_bucket() as bucket:
        runs = bucket.executions(status=status or None, order=order, limit=None if every else limit, **filters)
        if session.json or session.quiet:
            for execution in runs:
                if session.json:
                    session.output.json_line(execution.raw)
                else:
                    session.output.data(execution.execution_id)
            return
        rows = [_row_of(execution) for execution in runs]
    if rows:
        session.output.table(_LIST_COLUMNS, rows)
    else:
        session.output.note("no runs")
    if len(rows) == limit and not every:
        session.output.note(f"the first {limit}; --limit or --all shows more")


def _row_of(execution: Execution) -> tuple[object, ...]:
    return (
        execution.execution_id,
        execution.status,
        percent(execution),
        execution.basket_name or "-",
        local_time(execution.created_at, short=_is_short()),
        run_duration(execution),
    )


@click.command(cls=SessionCommand)
@click.argument("execution_id", metavar="ID")
@pass_session
def show(session: Session, execution_id: str) -> None:
    """Show a run as it stands: its steps, its error, its result. The exit code is 0 however it ended."""
    with session.open_bucket() as bucket:
        execution = bucket.poll(execution_id)
    output = session.output
    if session.json:
        output.json(execution.raw)
        return
    if session.quiet:
        output.data(execution.status)
        return
    for name, value in _facts_of(execution, session):
        output.data(f"{name:<11}{value}")
    columns = [
        Column("step"),
        Column("agent", dropped_at=2),
        Column("status", style_of=STATUS_COLOURS),
        Column("attempts", dropped_at=1, is_number=True),
        Column("took", dropped_at=3, is_number=True),
    ]
    rows = [
        (
            step["step"],
            step["agent"],
            step["status"],
            step["attempts"],
            "-" if step["duration_ms"] is None else duration_text(step["duration_ms"] / 1000),
        )
        for step in execution.steps
    ]
    output.data("")
    output.table(columns, rows)
    if execution.is_completed:
        output.data("\nresult")
        output.json(execution.result)


def _facts_of(execution: Execution, session: Session) -> list[tuple[str, str]]:
    status = session.output.paint(safe(execution.status), STATUS_COLOURS.get(execution.status))
    progress = execution.progress
    steps = f", {progress['steps_completed']} of {progress['steps_total']} steps" if progress else ""
    note = f": {progress['message']}" if progress and progress["message"] else ""
    facts: list[tuple[str, str | None]] = [
        ("id", execution.execution_id),
        ("basket", execution.basket_name),
        ("progress", f"{percent(execution)} %{steps}{note}"),
        ("now", None if execution.done else stage_text(execution)),
        ("error", failure_text(execution).partition(": ")[2] if execution.error else None),
        ("cancel", execution.cancel["reason"] if execution.cancel else None),
        ("created", local_time(execution.created_at, short=False)),
        ("started", local_time(execution.started_at, short=False)),
        ("finished", local_time(execution.finished_at, short=False)),
        ("took", run_duration(execution)),
        ("tags", ", ".join(execution.tags)),
        ("reference", execution.reference),
        ("retry of", execution.retry_of),
        ("metadata", json_text(execution.metadata) if execution.metadata else None),
        ("input", "the sample of the basket" if execution.input_source == "sample" else None),
        ("request", execution.request_id),
    ]
    shown = [(name, safe(value)) for name, value in facts if value and value != "-"]
    return [*shown[:2], ("status", status), *shown[2:]]


@click.command(cls=SessionCommand)
@click.argument("execution_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they come, until the run is done.")
@click.option(
    "--after", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only lines after this one (see --json)."
)
@pass_session
def logs(session: Session, execution_id: str, *, follow: bool, after: int) -> None:
    """Print the log of a run, the oldest line first. With --json each line is an object."""
    with session.open_bucket() as bucket:
        try:
            for line in bucket.logs(execution_id, follow=follow, after=after):
                if session.json:
                    session.output.json_line(line)
                else:
                    text = log_line_text(line, short=_is_short())
                    session.output.data(session.output.paint(text, LEVEL_COLOURS.get(line["level"])))
        except KeyboardInterrupt:
            raise Interrupted(f"to go on: {session.line_of('logs', '-f', execution_id)}") from None


def _is_short() -> bool:
    """Return whether times are short: on a terminal; a program gets whole ones."""
    return is_terminal(sys.stdout)
