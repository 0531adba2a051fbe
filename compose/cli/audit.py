"""``bucketd audit``: exports the audit log with its hash chain, and verifies an export, or the log in the store."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
import orjson

from api.audit.routes import decode_since
from compose.cli import console
from compose.operator_error import OperatorError
from compose.stack_connection import open_services
from shared.bootstrap import Services
from shared.domain.access.audit_chain import ChainEnd, ChainReport, chained_view, parse_lines, verify
from shared.domain.access.audit_event import event_view
from shared.errors import BucketError
from shared.store.access.audit_store import ChainedEvent
from shared.telemetry.logging_setup import configure_logging

_BATCHES_MAX: Final = 100_000


@click.group()
def audit() -> None:
    """Export and verify the audit log: who did what."""
    configure_logging("bucketd", "ERROR", stream=sys.stderr)  # stdout is for what a command is asked for


@audit.command()
@click.argument("file", type=click.File("wb", lazy=True), default="-")
@click.option("--since", metavar="CURSOR", help="Only what comes after it: a next_since of GET /audit.")
@console.data_option
def export(file: BinaryIO, *, since: str | None, data: Path) -> None:
    """Write all events, of all integrators, to FILE or stdout: a line of JSON each, with its hash.

    The last line on stderr has the hash that the export ends with: keep it apart from the file.
    """
    with _audit_services(data) as services:
        after = 0 if since is None else decode_since(since)
        _sequence(services)
        count, end = 0, ChainEnd(after)
        for each in services.audit.read_all(after):
            file.write(orjson.dumps(_record(each)) + b"\n")
            count, end = count + 1, ChainEnd(each.seq, each.hash)
        file.flush()
    console.say(f"{count} events, the last is {end.seq} with hash {end.hash}" if count else "no events", err=True)


@audit.command("verify")
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--after", metavar="HASH", help="The hash that the first event must follow: the last of an older export.")
@click.option("--head", metavar="HASH", help="The hash that the last event must have, as the export said.")
@click.option("--from-start", is_flag=True, help="The first event must be the first of all.")
@console.json_option
@console.data_option
def verify_chain(
    file: BinaryIO | None, *, after: str | None, head: str | None, from_start: bool, as_json: bool, data: Path
) -> None:
    """Check that nothing in FILE, or without it in the store, was removed, changed, moved or doubled.

    The exit code is 0 if the chain is intact, else 1, also for a FILE without any event. An end that was cut off is
    found only with --head.
    """
    if after is not None and from_start:
        raise click.UsageError("give --after or --from-start, not both")
    if file is not None:
        report = verify(parse_lines(file), after=after, head=head, from_start=from_start)
    else:
        with _audit_services(data) as services:
            _sequence(services)
            report = verify(_stored_records(services), after=after, head=head, from_start=True, may_be_empty=True)
    _print_report(report, as_json=as_json, is_begin_checked=file is None or from_start or after is not None)
    if report.faults:
        sys.exit(1)


def _sequence(services: Services) -> None:
    services.audit_sequencer.sequence(services.clock.now(), _BATCHES_MAX)


def _stored_records(services: Services) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for each in services.audit.read_all():
        yield f"event {each.seq} of the store", _record(each)


def _record(each: ChainedEvent) -> dict[str, Any]:
    return chained_view(event_view(each.seq, each.event), each.prev_hash, each.hash)


def _print_report(report: ChainReport, *, as_json: bool, is_begin_checked: bool) -> None:
    begin = report.begin
    if as_json:
        view = {
            "intact": not report.faults,
            "events": report.count,
            "follows": None if begin is None else {"seq": begin.seq, "hash": begin.hash},
            "head": {"seq": report.end.seq, "hash": report.end.hash},
            "faults": report.faults,
        }
        click.echo(orjson.dumps(view, option=orjson.OPT_INDENT_2))
        return
    for fault in report.faults:
        click.echo(fault)
    if report.faults:
        click.echo(f"{report.count} events, chain broken")
        return
    click.echo(f"{report.count} events, chain intact, the last is {report.end.seq} with hash {report.end.hash}")
    if begin is not None and begin.seq and not is_begin_checked:
        click.echo(f"it begins after event {begin.seq}, hash {begin.hash}: --after {begin.hash} checks that it follows")


@contextmanager
def _audit_services(data: Path) -> Iterator[Services]:
    try:
        with open_services(data) as services:
            yield services
    except BucketError as error:
        fix = error.fix if isinstance(error, OperatorError) else "bucketd doctor checks the servers"
        console.print_failure("audit", OperatorError(error.message, fix=fix))
        sys.exit(1)
