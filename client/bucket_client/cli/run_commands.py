"""``bucket run``, ``watch``, ``cancel`` and ``retry``: what makes runs, waits for them, and ends them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

import click

from bucket_client import reads, submits
from bucket_client.cli.error_report import FAILED
from bucket_client.cli.following import Submission, explained, finish, follow, follow_each
from bucket_client.cli.output import Column
from bucket_client.cli.param_types import Duration, JsonObject, Start
from bucket_client.cli.run_texts import STATUS_COLOURS, end_text, failure_text, run_duration
from bucket_client.cli.session import Session, SessionCommand, complete_basket, pass_session
from bucket_client.execution import Execution
from bucket_client.submits import SubmitOptions

F = TypeVar("F", bound=Callable[..., Any])
_BARS_MAX = 8
"""Bucket holds so many polls in one process by default; more runs are watched without bars, in one request."""

dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be sent, and change nothing.")
key_option = click.option(
    "--key", metavar="KEY", help="Idempotency key: the same command with the same key runs once (for 24 hours)."
)
_wait_option = click.option("--wait", is_flag=True, help="Wait for the end and print the result.")
_timeout_option = click.option(
    "--timeout", type=Duration(), metavar="S", help="End the wait after so many seconds (or 5m, 2h); the run goes on."
)


def submit_options(command: F) -> F:
    """Add what a submit may say besides its basket and its input."""
    options = [
        click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag to find the run by; may be repeated."),
        click.option("--metadata", type=JsonObject(), help="An object that each poll returns."),
        click.option("--reference", metavar="TEXT", help="A number of your own to find the run by."),
        click.option("--run-after", type=Start(), metavar="TIME", help="Do not run before: 30m, or an RFC 3339 time."),
        click.option("--start-deadline", type=Duration(), metavar="S", help="Fail if it has not begun by then."),
        click.option("--deadline", type=Duration(), metavar="S", help="Fail if it is not done by then."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def options_of(
    *,
    tags: tuple[str, ...],
    metadata: Mapping[str, Any] | None,
    reference: str | None,
    run_after: float | datetime | None,
    start_deadline: float | None,
    deadline: float | None,
) -> SubmitOptions:
    """Return the options of a submit as the client takes them."""
    return {
        "tags": list(tags) or None,
        "metadata": metadata,
        "reference": reference,
        "run_after": run_after if isinstance(run_after, datetime) else None,
        "run_after_s": run_after if isinstance(run_after, float) else None,
        "start_deadline_s": start_deadline,
        "deadline_s": deadline,
    }


@click.command("run", cls=SessionCommand)
@click.argument("basket", shell_complete=complete_basket)
@click.option("-i", "--input", "given", type=JsonObject(), help="The input. Without it, the sample of the basket runs.")
@_wait_option
@_timeout_option
@key_option
@submit_options
@click.option("--request-id", metavar="ID", help="An id of yours for this request, for the logs of Bucket.")
@dry_run_option
@pass_session
def run_basket(
    session: Session,
    /,
    basket: str,
    given: dict[str, Any] | None,
    *,
    wait: bool,
    timeout: float | None,
    key: str | None,
    request_id: str | None,
    dry_run: bool,
    **more: Any,
) -> None:
    """Submit a run of BASKET, and with --wait print its result.

    Without --wait it prints the id of the run; `bucket watch ID` waits for it at any later time.

    \b
    bucket run working_test --wait -i '{"transactions": []}'
    bucket run working_test -i input.json --key order-17
    """  # noqa: D301 -- click reads the character
    options = options_of(**more) | {"idempotency_key": key or uuid.uuid4().hex, "request_id": request_id}
    if dry_run:
        session.preview(lambda settings: submits.run(settings, basket, given, **options))
        return
    _submit(
        session, str(options["idempotency_key"]), lambda bucket: bucket.run(basket, given, **options), wait, timeout
    )


@click.command(cls=SessionCommand)
@click.argument("execution_id", metavar="ID")
@click.option(
    "--from",
    "start",
    type=click.Choice(["failed", "start"]),
    default="failed",
    show_default=True,
    help="Run what did not complete, or everything.",
)
@_wait_option
@_timeout_option
@key_option
@dry_run_option
@pass_session
def retry(
    session: Session,
    execution_id: str,
    *,
    start: Literal["failed", "start"],
    wait: bool,
    timeout: float | None,
    key: str | None,
    dry_run: bool,
) -> None:
    """Run a failed or cancelled run again, as a new run."""
    key = key or uuid.uuid4().hex
    if dry_run:
        session.preview(lambda settings: submits.retry(settings, execution_id, start=start, idempotency_key=key))
        return
    _submit(session, key, lambda bucket: bucket.retry(execution_id, start=start, idempotency_key=key), wait, timeout)


def _submit(
    session: Session,
    key: str,
    submit: Callable[[Any], Execution],
    wait: bool,
    timeout: float | None,
) -> None:
    """Submit a run, then print its id, or wait for its end and print its result."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    with session.open_bucket() as bucket, explained(session, Submission(key)) as submission:
        accepted = submit(bucket)
        submission.execution_ids.append(accepted.execution_id)
        if wait:
            done = follow(session, bucket, accepted.execution_id, timeout)
    if wait:
        finish(session, done)
    elif session.json:
        session.output.json(accepted.raw)
    else:
        session.output.data(accepted.execution_id)
        session.output.note(f"{accepted.status}; to wait for it: {session.line_of('watch', accepted.execution_id)}")


@click.command(cls=SessionCommand)
@click.argument("execution_ids", metavar="ID...", nargs=-1, required=True)
@_timeout_option
@pass_session
@click.pass_context
def watch(context: click.Context, session: Session, execution_ids: tuple[str, ...], timeout: float | None) -> None:
    """Wait until runs are done, however they were submitted.

    For one ID it prints the result, as `run --wait` does; for several a table. With --json it prints a line for each
    run when it is done: the whole run. The exit code is 1 if one did not complete.
    """
    ids = list(dict.fromkeys(execution_ids))
    with session.open_bucket() as bucket, explained(session, Submission("", ids)):
        if len(ids) == 1:
            done = [follow(session, bucket, ids[0], timeout)]
        elif session.output.draws_progress and len(ids) <= _BARS_MAX:
            done = follow_each(session, bucket, ids, timeout)
        else:
            done = bucket.wait_many(ids, _on_end(session, len(ids)), timeout=timeout)
    if len(ids) == 1:
        finish(session, done[0], on_one_line=True)
    elif not session.json:
        _print_ends(session, done)
    if not all(execution.is_completed for execution in done):
        context.exit(FAILED)


def _on_end(session: Session, count: int) -> Callable[[Execution], None]:
    """Return what is done when one of ``count`` runs has ended: a line for a program, a note for a person."""
    ended = itertools.count(1)

    def show(execution: Execution) -> None:
        if session.json:
            session.output.json_line(execution.raw)
        else:
            session.output.note(f"{execution.execution_id} {end_text(execution)} ({next(ended)} of {count})")

    return show


def _print_ends(session: Session, done: list[Execution]) -> None:
    columns = [
        Column("id"),
        Column("status", style_of=STATUS_COLOURS),
        Column("took", dropped_at=2, is_number=True),
        Column("error", dropped_at=1, wraps=True),
    ]
    rows = []
    for execution in done:
        error = execution.error
        reason = f"{error['error_code']}: {error['message']}" if error else ""
        rows.append((execution.execution_id, execution.status, run_duration(execution), reason))
    session.output.table(columns, rows)


@click.command(cls=SessionCommand)
@click.argument("execution_id", metavar="ID")
@click.option("--reason", metavar="TEXT", help="Why; polls of the run show it.")
@dry_run_option
@pass_session
def cancel(session: Session, execution_id: str, *, reason: str | None, dry_run: bool) -> None:
    """Ask a run to stop. A run that is over stays as it is."""
    if dry_run:
        session.preview(lambda settings: reads.cancel(settings, execution_id, reason))
        return
    with session.open_bucket() as bucket:
        execution = bucket.cancel(execution_id, reason)
    if session.json:
        session.output.json(execution.raw)
    elif not session.quiet:
        session.output.data(_cancel_text(session, execution))


def _cancel_text(session: Session, execution: Execution) -> str:
    match (execution.cancel or {}).get("outcome"):
        case "pending":
            line = session.line_of("watch", execution.execution_id)
            return f"{execution.execution_id} is asked to stop; a step has yet to end: {line}"
        case "already_final":
            return f"{execution.execution_id} was over before: {execution.status}"
    return failure_text(execution)
