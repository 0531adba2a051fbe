"""``bucketd integrations``: the register of the systems that may submit, from the request to the key."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import orjson

from api.http.request_body import load_body
from api.integrations.integration_service import IntegrationService
from api.integrations.schemas import (
    MoveCommentSchema,
    NewIntegrationSchema,
    ReasonSchema,
    check_ticks,
    integration_details,
)
from compose.cli import console
from compose.cli.audited_services import AuditedIntegrationService
from compose.cli.keys import operator_name, split_names
from compose.operator_error import OperatorError
from compose.stack_connection import open_services
from shared.domain.access.integration import IntegrationAction, IntegrationStatus
from shared.errors import BucketError, IllegalMove, IntegrationIncomplete, RequestError, ValidationFailed
from shared.telemetry.logging_setup import configure_logging

_LIST_PAGE: Final = 500

_id_argument = click.argument("integration_id", metavar="ID")
_comment_option = click.option("--comment", help="Why; it stays in the history.")


@click.group()
def integrations() -> None:
    """Register the systems that may submit, check them, activate and suspend them."""
    configure_logging("bucketd", "ERROR", stream=sys.stderr)  # stdout is for what a command is asked for


@integrations.command("list")
@click.option("--status", type=click.Choice([str(status) for status in IntegrationStatus]), help="Only those.")
@console.json_option
@console.data_option
def list_integrations(*, status: str | None, as_json: bool, data: Path) -> None:
    """List the integrations by name."""
    with _service(data) as service:
        views = list(service.list_all(_LIST_PAGE, () if status is None else (IntegrationStatus(status),)))
    if as_json:
        _print_json({"integrations": views})
        return
    for view in views:
        click.echo(f"{view['id']}  {view['status']:<17} {view['percentage']:>3} %  {view['name']}")
    if not views:
        click.echo("there are no such integrations; bucketd integrations request makes one")


@integrations.command()
@_id_argument
@console.json_option
@console.data_option
def show(integration_id: str, *, as_json: bool, data: Path) -> None:
    """Show integration ID, and who moved it when."""
    with _service(data) as service:
        view = service.get(integration_id)
    if as_json:
        _print_json(view)
        return
    for name, value in view.items():
        if name != "history":
            click.echo(f"{name:<12} {_as_text(value)}")
    for move in view["history"]:
        comment = f": {move['comment']}" if move["comment"] else ""
        click.echo(f"    {move['at']}  {move['action']} by {move['by']}{comment}")


@integrations.command()
@click.option("--name", required=True, help="The integrator of its keys.")
@click.option("--use-case", required=True, help="What it is for.")
@click.option("--data-flow", required=True, help="What goes into runs, and where results go.")
@click.option("--agents", help="The agents that it runs, separated by commas.")
@click.option("--baskets", help="The baskets that it runs, separated by commas; its key runs only these.")
@click.option("--volume", required=True, help="How many runs a day, or a text that says more.")
@click.option("--contact", required=True, help="Whom to reach about it.")
@click.option("--mapping-url", help="The address of the document that maps its data to inputs.")
@console.json_option
@console.data_option
def request(*, as_json: bool, data: Path, **options: Any) -> None:
    """Request an integration."""
    volume = options["volume"]
    body = options | {
        "agents": split_names(options["agents"]),
        "baskets": split_names(options["baskets"]),
        "volume": int(volume) if volume.isascii() and volume.isdigit() else volume,
    }
    with _service(data) as service:
        details = integration_details(load_body(NewIntegrationSchema(), body))
        _print_moved(service.request(details, operator_name()), as_json=as_json)


def _move_command(action: IntegrationAction, help_text: str) -> None:
    """Add the command that moves an integration by ``action``."""
    needs_comment = action is IntegrationAction.REQUEST_CHANGES
    schema = ReasonSchema() if needs_comment else MoveCommentSchema()

    def move(integration_id: str, *, comment: str | None, as_json: bool, data: Path) -> None:
        with _service(data) as service:
            text = load_body(schema, {} if comment is None else {"comment": comment}).get("comment")
            _print_moved(service.move(integration_id, action, operator_name(), text), as_json=as_json)

    options: tuple[Callable[[Any], Any], ...] = (
        console.data_option,
        console.json_option,
        click.option("--comment", required=True, help="What has to change.") if needs_comment else _comment_option,
        _id_argument,
    )
    command: Any = move
    for option in options:
        command = option(command)
    integrations.command(action.replace("_", "-"), help=help_text)(command)


_move_command(IntegrationAction.REVIEW, "Begin the review of integration ID.")
_move_command(IntegrationAction.APPROVE, "End the review of integration ID: it may be activated.")
_move_command(IntegrationAction.REQUEST_CHANGES, "End the review of integration ID: something has to change first.")
_move_command(IntegrationAction.ACTIVATE, "Let integration ID submit; the first time its key is printed, once.")
_move_command(IntegrationAction.SUSPEND, "Stop the submits of integration ID; its polls go on.")


@integrations.command()
@_id_argument
@click.option("--done", help="Items that are done, separated by commas; all names every one.")
@click.option("--open", "undone", help="Items that are open again, separated by commas.")
@console.json_option
@console.data_option
def checklist(integration_id: str, *, done: str | None, undone: str | None, as_json: bool, data: Path) -> None:
    """Show the checklists of integration ID, or tick off items of them."""
    with _service(data) as service:
        view = service.compliance(integration_id)
        every_item = [item["id"] for item in view["items"]]
        done_items = every_item if done == "all" else split_names(done) or []
        ticks = dict.fromkeys(done_items, True) | dict.fromkeys(split_names(undone) or [], False)
        if ticks:
            view = service.tick(integration_id, check_ticks(ticks), operator_name())
    if as_json:
        _print_json(view)
        return
    for item in view["items"]:
        who = f" ({item['by']}, {item['at']})" if item["by"] else ""
        click.echo(f"[{'x' if item['done'] else ' '}] {item['id']}: {item['text']}{who}")
    click.echo(f"{view['percentage']} %")


def _print_moved(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json(view)
        return
    if "key" in view:
        click.echo(view["key"])  # alone on stdout, for KEY=$(bucketd integrations activate ...)
        click.echo(f"key {view['key_id']} until {view['key_expires_at']}; it is not shown again", err=True)
    click.echo(f"{view['id']} {view['name']} is {view['status']}, at {view['percentage']} %", err="key" in view)


def _as_text(value: Any) -> str:
    if value is None or value == []:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _print_json(view: dict[str, Any]) -> None:
    click.echo(orjson.dumps(view, option=orjson.OPT_INDENT_2))


@contextmanager
def _service(data: Path) -> Iterator[IntegrationService]:
    command = click.get_current_context().info_name
    try:
        with open_services(data) as services:
            services.database.ensure_indexes()  # the name is unique also before the API has ever started
            yield AuditedIntegrationService(services, operator_name())
    except BucketError as error:
        console.print_failure("integrations", OperatorError(error.message, fix=_fix_of(error, command)))
        sys.exit(1)


def _fix_of(error: BucketError, command: str | None) -> str:
    """Return what a person can do about a refused ``command``."""
    match error:
        case OperatorError():
            return error.fix
        case IntegrationIncomplete():
            return "bucketd integrations checklist ID shows the items; with --done NAME,NAME it ticks them off"
        case IllegalMove():
            return "bucketd integrations show ID shows how far it is"
        case ValidationFailed():
            hint = "ID shows the items" if command == "checklist" else "--help shows the options"
            return f"bucketd integrations {command} {hint}"
        case RequestError():
            return "bucketd integrations list shows those there are"
    return "bucketd doctor checks the servers"
