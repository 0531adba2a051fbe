"""``bucketd dead-letters``: lists dead letters (what failed for good), and sends one again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from compose.cli import console
from compose.operator_error import OperatorError
from compose.stack_connection import open_services
from shared.bootstrap import Services
from shared.domain.dead_letter import DeadLetter
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, start_retry
from shared.errors import BucketError, NotFound, NotRetryable, OutcomeUnknown
from shared.ids import new_execution_id, new_request_id
from shared.timestamps import format_rfc3339

_MESSAGE_MAX_CHARS: Final = 100

_data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the stack of make up keeps its data; by default .bucket in the project.",
)


@click.group("dead-letters", invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="How many, newest first.")
@_data_option
@click.pass_context
def dead_letters(context: click.Context, *, limit: int, data: Path | None) -> None:
    """List what failed for good: lost workers, used-up retries, broken data, unreadable messages."""
    if context.invoked_subcommand is not None:
        context.obj = data
        return
    with _open_services(data) as services:
        letters = services.dead_letters.list_page(PUBLIC_INTEGRATOR, limit)
        for letter in letters:
            click.echo("\n".join(_format_letter(letter)))
        if not letters:
            click.echo("there are no dead letters")


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@_data_option
@click.pass_context
def requeue(context: click.Context, letter_id: str, *, data: Path | None) -> None:
    """Send a dead letter again, as a new execution that continues from the failed step."""
    with _open_services(data or context.obj) as services:
        click.echo(f"{letter_id} goes on as {requeue_letter(services, letter_id)}")


def requeue_letter(services: Services, letter_id: str) -> str:
    """Create and publish a new execution that retries a dead letter, and return its id.

    Raises NotFound, NotRetryable and OutcomeUnknown.
    """
    letter = services.dead_letters.find(PUBLIC_INTEGRATOR, letter_id)
    if letter is None:
        raise NotFound(f"there is no dead letter {letter_id!r}")
    if letter.execution_id is None:
        raise NotRetryable(f"{letter.id} is a message that could not be read: nobody knows what it stood for")
    original = services.store.read(PUBLIC_INTEGRATOR, letter.execution_id)
    if original is None:
        raise NotFound(f"execution {letter.execution_id} is gone")
    now = services.clock.now()
    request = RetryRequest(new_execution_id(now), now, new_request_id())
    decision, outputs = start_retry(original, request, RetryFrom.FAILED, services.timings)
    try:
        services.store.create(decision, outputs)
    except OutcomeUnknown:  # nothing refers to this new run, and the operator will repeat the command
        with suppress(BucketError):  # MongoDB is still away: the error below says that the outcome is unknown
            services.store.withdraw(PUBLIC_INTEGRATOR, request.id)
        raise
    services.publisher.publish_accepted([decision], outputs)
    return request.id


def _format_letter(letter: DeadLetter) -> Iterator[str]:
    subject = letter.basket_name or f"came {letter.occurrences} times"
    yield f"{letter.id}  {format_rfc3339(letter.finished_at)}  {subject}  {letter.error.error_code}"
    yield f"    {letter.error.message if letter.message is None else letter.message[:_MESSAGE_MAX_CHARS]}"
    if letter.retried_as:
        yield f"    retried as {', '.join(letter.retried_as)}"


@contextmanager
def _open_services(data: Path | None) -> Iterator[Services]:
    try:
        with open_services((data or console.project_root() / ".bucket").resolve()) as services:
            yield services
    except BucketError as error:
        fix = error.fix if isinstance(error, OperatorError) else "bucketd dead-letters lists those there are"
        console.print_failure("dead-letters", OperatorError(error.message, fix=fix))
        sys.exit(1)
