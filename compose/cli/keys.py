"""``bucketd keys``: makes, lists, rotates and revokes API keys; it needs no key itself, but the stores' passwords."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click
import orjson
from marshmallow import ValidationError

from api.auth.key_service import KeyService
from api.auth.schemas import NewKeySchema, RotationSchema, key_request
from compose.cli import console
from compose.cli.audited_services import AuditedKeyService
from compose.cli.rotate_data import rotate_data
from compose.operator_error import OperatorError
from compose.stack_connection import open_services
from shared.domain.access.caller import Role
from shared.domain.access.key_format import KEY_ID_PATTERN
from shared.errors import BucketError, RequestError, ValidationFailed
from shared.telemetry.logging_setup import configure_logging

_LIST_PAGE: Final = 500
_OPTIONS: Final = {"expires_in_days": "expires-days"}
"""The options of another name than the member of the body that they fill."""


@click.group()
def keys() -> None:
    """Make, list, rotate and revoke the keys of callers."""
    configure_logging("bucketd", "ERROR", stream=sys.stderr)  # stdout is for what a command is asked for


keys.add_command(rotate_data)


@keys.command()
@click.option("--role", type=click.Choice([str(role) for role in Role]), required=True, help="What the key permits.")
@click.option("--integrator", metavar="NAME", help="The system whose runs it sees; an admin's may leave it out.")
@click.option("--name", default="", help="What the key is for.")
@click.option("--owner", default="", help="Who answers for it: a person or a team.")
@click.option("--expires-days", type=float, help="Its life in days; 90 by default.")
@click.option("--baskets", help="The only baskets that it may run, separated by commas.")
@click.option("--networks", help="The only addresses that it is valid from, separated by commas.")
@click.option("--payloads", is_flag=True, help="A reader's key: it sees inputs, outputs and logs too.")
@click.option("--integration", metavar="ID", help="The registered integration that it belongs to.")
@console.json_option
@console.data_option
def create(*, as_json: bool, data: Path, **options: Any) -> None:
    """Make a key and print it: nothing can show it again."""
    body = {
        "role": options["role"],
        "integrator": options["integrator"],
        "name": options["name"],
        "owner": options["owner"],
        "expires_in_days": options["expires_days"],
        "baskets": split_names(options["baskets"]),
        "networks": split_names(options["networks"]),
        "payloads": options["payloads"],
        "integration": options["integration"],
    }
    with _key_service(data) as service:
        request = key_request(_load(NewKeySchema(), body))
        _print_new(service.create(request, operator_name()), as_json=as_json)


@keys.command("list")
@console.json_option
@console.data_option
def list_keys(*, as_json: bool, data: Path) -> None:
    """List all keys, also those that have ended."""
    with _key_service(data) as service:
        views = list(service.list_all(_LIST_PAGE))
    if as_json:
        click.echo(orjson.dumps({"keys": views}, option=orjson.OPT_INDENT_2))
        return
    for view in views:
        whose = f"{view['role']:<10} {view['integrator']}  {view['name']}".rstrip()
        click.echo(f"{view['id']}  {view['status']:<8} {whose}")
        click.echo(f"    expires {view['expires_at']}, last used {view['last_used_at'] or 'never'}")
    if not views:
        click.echo("there are no keys; bucketd keys create makes one")


@keys.command()
@click.argument("key_id", metavar="ID")
@console.json_option
@console.data_option
def show(key_id: str, *, as_json: bool, data: Path) -> None:
    """Show the record of key ID, never the key itself."""
    with _key_service(data) as service:
        _print_view(service.get(key_id), as_json=as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--grace-s", type=float, default=0.0, help="How long the old key stays valid, in seconds; 0 by default.")
@console.json_option
@console.data_option
def rotate(key_id: str, *, grace_s: float, as_json: bool, data: Path) -> None:
    """Replace key ID by a new one that permits the same, and print the new one."""
    with _key_service(data) as service:
        grace = timedelta(seconds=_load(RotationSchema(), {"grace_s": grace_s})["grace_s"])
        _print_new(service.rotate(key_id, grace, operator_name()), as_json=as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@console.json_option
@console.data_option
def revoke(key_id: str, *, as_json: bool, data: Path) -> None:
    """Revoke key ID, or a key as it was found, for good: every process of the API refuses it within two seconds."""
    key_id = _id_in(key_id)
    with _key_service(data) as service:
        view = service.revoke(key_id)
    if as_json:
        _print_view(view, as_json=True)
    else:
        click.echo(f"{key_id} is revoked")


def _id_in(text: str) -> str:
    """Return the id in a key, also in half a one, because a leak leaves no time to cut it out; else the text."""
    match = re.match(rf"bkt_({KEY_ID_PATTERN.pattern})(_|$)", text)
    return match[1] if match else text


def operator_name() -> str:
    """Return who runs this command, as the record of a key names it."""
    try:
        return f"bucketd:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return "bucketd"


def split_names(text: str | None) -> list[str] | None:
    """Return the names in a list with commas between; None if it is absent."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _load(schema: Any, body: dict[str, Any]) -> Any:
    """Return what ``schema`` loads of the options; raises OperatorError, with the option that is wrong."""
    try:
        return schema.load({name: value for name, value in body.items() if value is not None})
    except ValidationError as error:
        faults = error.messages.items() if isinstance(error.messages, dict) else [("options", error.messages)]
        lines = [f"--{_OPTIONS.get(name, str(name).replace('_', '-'))}: {_flat(fault)}" for name, fault in faults]
        raise OperatorError("an option is wrong", fix="\n".join(lines)) from error


def _flat(fault: Any) -> str:
    """Return marshmallow's messages as one text: a list, or those of the items of a list."""
    if isinstance(fault, dict):
        return "; ".join(map(_flat, fault.values()))
    return "; ".join(map(str, fault)) if isinstance(fault, list) else str(fault)


def _print_new(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_view(view, as_json=True)
        return
    click.echo(view["key"])  # alone on stdout, for KEY=$(bucketd keys create ...)
    summary = f"{view['role']} of {view['integrator']}, until {view['expires_at']}; it is not shown again"
    click.echo(f"key {view['id']}: {summary}", err=True)
    for warning in view.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)
    if "replaces" in view:
        click.echo(f"key {view['replaces']['id']} ends at {view['replaces']['expires_at']}", err=True)


def _print_view(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(view, option=orjson.OPT_INDENT_2))
        return
    for name, value in view.items():
        click.echo(f"{name:<13} {'-' if value is None or value == '' else value}")


@contextmanager
def _key_service(data: Path) -> Iterator[KeyService]:
    try:
        with open_services(data) as services:
            yield AuditedKeyService(services, operator_name())
    except BucketError as error:
        console.print_failure("keys", OperatorError(error.message, fix=_fix_of(error)))
        sys.exit(1)


def _fix_of(error: BucketError) -> str:
    """Return what a person can do about a refused command."""
    match error:
        case OperatorError():
            return error.fix
        case ValidationFailed():  # the options themselves were checked before
            return "bucketd integrations list shows the integrations there are"
        case RequestError():
            return "bucketd keys list shows those there are"
    return "bucketd doctor checks the servers"
