"""``bucketd dead-letters``: what failed for good, and the way to send it again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from compose.cli import console
from compose.errors import Trouble
from compose.operator_services import services_of
from shared.bootstrap import Services
from shared.domain.dead_letter import DeadLetter
from shared.domain.execution import PUBLIC
from shared.domain.lifecycle.rerun import Request, RetryFrom, again, check_retryable
from shared.domain.lifecycle.transitions import start
from shared.errors import BucketError, NotFound, NotRetryable
from shared.ids import new_execution_id, new_request_id
from shared.timestamps import format_rfc3339

_MESSAGE_SHOWN: Final = 100

_data = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the stack of make up keeps its data; .bucket of the project unless said.",
)


@click.group("dead-letters", invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="How many, newest first.")
@_data
@click.pass_context
def dead_letters(context: click.Context, *, limit: int, data: Path | None) -> None:
    """List what failed for good: lost workers, used-up retries, broken data, messages that nobody could read."""
    if context.invoked_subcommand is not None:
        context.obj = data
        return
    with _services(data) as services:
        found = services.dead_letters.page(PUBLIC, limit)
        for letter in found:
            click.echo("\n".join(_told(letter)))
        if not found:
            click.echo("there are no dead letters")


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@_data
@click.pass_context
def requeue(context: click.Context, letter_id: str, *, data: Path | None) -> None:
    """Send a dead letter again, as a new execution that goes on from what failed."""
    with _services(data or context.obj) as services:
        click.echo(f"{letter_id} goes on as {requeued(services, letter_id)}")


def requeued(services: Services, letter_id: str) -> str:
    """Answer the id of a new execution that retries a dead letter; raises NotFound and NotRetryable."""
    letter = services.dead_letters.find(PUBLIC, letter_id)
    if letter is None:
        raise NotFound(f"there is no dead letter {letter_id!r}")
    if letter.execution_id is None:
        raise NotRetryable(f"{letter.id} is a message that could not be read: nobody knows what it stood for")
    original = services.store.read(PUBLIC, letter.execution_id)
    if original is None:
        raise NotFound(f"execution {letter.execution_id} is gone")
    check_retryable(original.execution, RetryFrom.FAILED)
    now = services.clock.now()
    blank, outputs = again(original, Request(new_execution_id(now), now, new_request_id()), RetryFrom.FAILED)
    accepted = start(blank, now, services.terms)
    services.store.create(accepted, outputs)
    services.publisher.accepted([accepted], outputs)
    return blank.id


def _told(letter: DeadLetter) -> Iterator[str]:
    about = letter.basket_name or f"came {letter.times} times"
    yield f"{letter.id}  {format_rfc3339(letter.finished_at)}  {about}  {letter.error.error_code}"
    yield f"    {letter.error.message if letter.message is None else letter.message[:_MESSAGE_SHOWN]}"
    if letter.retried_as:
        yield f"    retried as {', '.join(letter.retried_as)}"


@contextmanager
def _services(data: Path | None) -> Iterator[Services]:
    try:
        with services_of((data or console.home() / ".bucket").resolve()) as services:
            yield services
    except Trouble as trouble:
        console.cross("dead-letters", trouble)
        sys.exit(1)
    except BucketError as wrong:
        console.cross("dead-letters", Trouble(wrong.message, fix="bucketd dead-letters lists those there are"))
        sys.exit(1)
