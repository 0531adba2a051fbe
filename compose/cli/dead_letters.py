"""``bucketd dead-letters``: lists dead letters (what failed for good), sends one again, or dismisses one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from compose.cli import console
from compose.operator_error import OperatorError
from compose.stack_connection import open_services
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.access.caller import OPERATOR_CALLER
from shared.domain.dead_letter import DeadLetter, DeadLetterQuery
from shared.errors import BucketError
from shared.ids import new_request_id
from shared.telemetry.logging_setup import configure_logging
from shared.timestamps import format_rfc3339

RETRY_WITHIN_S: Final = 30.0
_RETRY_EVERY_S: Final = 0.5
_MESSAGE_MAX_CHARS: Final = 100

_data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the stack of make up keeps its data; by default .bucket in the project.",
)


@click.group("dead-letters", invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="How many, newest first.")
@click.option("--error-code", help="Only those that failed with this code.")
@click.option("--agent", help="Only those that this agent failed.")
@click.option("--basket", help="Only those of this basket.")
@_data_option
@click.pass_context
def dead_letters(
    context: click.Context,
    *,
    limit: int,
    error_code: str | None,
    agent: str | None,
    basket: str | None,
    data: Path | None,
) -> None:
    """List what failed for good: lost workers, used-up retries, broken data, unreadable messages."""
    if context.invoked_subcommand is not None:
        context.obj = data
        return
    with _open_services(data) as services:
        letters = services.dead_letters.list_page(None, limit, filters=DeadLetterQuery(error_code, agent, basket))
        for letter in letters:
            click.echo("\n".join(_format_letter(letter)))
        if not letters:
            is_filtered = any((error_code, agent, basket))
            click.echo("there are no such dead letters" if is_filtered else "there are no dead letters")


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@_data_option
@click.pass_context
def requeue(context: click.Context, letter_id: str, *, data: Path | None) -> None:
    """Send a dead letter again, as a new execution that continues from the failed step."""
    configure_logging("bucketd", "CRITICAL", stream=sys.stderr)  # what the API would log is no output of a command
    with _open_services(data or context.obj) as services:
        click.echo(f"{letter_id} goes on as {requeue_letter(services, letter_id)}")


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@_data_option
@click.pass_context
def dismiss(context: click.Context, letter_id: str, *, data: Path | None) -> None:
    """Take a dead letter out of the list; its run stays as it is."""
    configure_logging("bucketd", "CRITICAL", stream=sys.stderr)
    with _open_services(data or context.obj) as services:
        click.echo(f"{letter_id} was dismissed at {_post_to_letter(services, letter_id, 'dismiss')['dismissed_at']}")


def requeue_letter(services: Services, letter_id: str) -> str:
    """Send a dead letter again and return the id of the new run; raises OperatorError if it is refused."""
    return str(_post_to_letter(services, letter_id, "requeue")["execution_id"])


def _post_to_letter(services: Services, letter_id: str, action: str) -> dict[str, Any]:
    """Post ``action`` by the route of the API, in this process, and return the body of the reply.

    So admission, idempotency, the audit and the words of a refusal are the API's own. While a store is away or the
    backlog is too long, the request is repeated for :data:`RETRY_WITHIN_S`; by its key a run is made once. Raises
    OperatorError if it is refused.
    """
    from api.app import create_app  # only here: no other command needs the API, and it takes a third of a second

    app, start = create_app(services, OPERATOR_CALLER)
    start()
    due_by = boottime_s() + RETRY_WITHIN_S
    headers = {"Idempotency-Key": f"bucketd-{new_request_id()}"}
    while True:
        reply = app.test_client().post(f"/dead-letters/{quote(letter_id, safe='')}/{action}", headers=headers)
        body: dict[str, Any] = reply.get_json()
        if reply.status_code < HTTPStatus.BAD_REQUEST:
            return body
        if reply.status_code != HTTPStatus.SERVICE_UNAVAILABLE or boottime_s() > due_by:
            raise OperatorError(body["detail"], fix="bucketd dead-letters lists them, and what became of each")
        time.sleep(_RETRY_EVERY_S)


def _format_letter(letter: DeadLetter) -> Iterator[str]:
    subject = letter.basket_name or f"came {letter.occurrences} times"
    finished_at = format_rfc3339(letter.finished_at)
    yield f"{letter.id}  {finished_at}  {letter.integrator}  {subject}  {letter.error.error_code}"
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
