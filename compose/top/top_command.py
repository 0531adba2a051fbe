"""``bucketd top``: reads the state of a stack by polling, and draws it again and again, or prints it once."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import orjson

from api.app import create_app
from compose.cli import console
from compose.operator_error import OperatorError
from compose.stack_connection import open_services
from compose.top.top_screen import format_snapshot
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.access.caller import OPERATOR_CALLER
from shared.errors import BucketError
from shared.telemetry.logging_setup import configure_logging
from shared.timestamps import format_rfc3339

FAILURES_SHOWN: Final = 8
FIRST_READ_WITHIN_S: Final = 10.0
_FIRST_READ_EVERY_S: Final = 0.2
_PATHS: Final = {
    "health": "/health",
    "stats": "/executions/stats",
    "workers": "/workers",
    "failures": f"/executions?status=failed&limit={FAILURES_SHOWN}",
}

Snapshot = dict[str, Any]


@click.command()
@click.option("--once", is_flag=True, help="Print it once and end; so it does where there is no terminal.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@console.json_option
@console.data_option
def top(*, once: bool, every_s: float, as_json: bool, data: Path) -> None:
    """Watch the queues, the workers and the newest failures; Ctrl-C ends it."""
    configure_logging("bucketd", "CRITICAL", stream=sys.stderr)  # what the API would log is no output of a command
    try:
        with open_services(data) as services, _reader(services) as read:
            snapshot = _read_first(read)
            if as_json or once or not sys.stdout.isatty():
                _print(snapshot, as_json=as_json)
                return
            _watch(snapshot, read, every_s)
    except BucketError as error:
        fix = error.fix if isinstance(error, OperatorError) else "bucketd doctor checks the servers"
        console.print_failure("top", OperatorError(error.message, fix=fix))
        sys.exit(1)


@contextmanager
def _reader(services: Services) -> Iterator[Callable[[], Snapshot]]:
    """Yield what reads a snapshot by the routes of the API, in this process; a part that is away is its problem."""
    app, start = create_app(services, OPERATOR_CALLER)
    end = start()
    client = app.test_client()

    def read() -> Snapshot:
        at = format_rfc3339(datetime.now(UTC))
        return {"at": at} | {name: client.get(path).get_json() for name, path in _PATHS.items()}

    try:
        yield read
    finally:
        end()


def _read_first(read: Callable[[], Snapshot]) -> Snapshot:
    """Read until all parts reply, as the monitors of this process have just begun; at last return what there is."""
    due_by = boottime_s() + FIRST_READ_WITHIN_S
    while True:
        snapshot = read()
        is_complete = not any("error_code" in snapshot[name] for name in _PATHS)
        if is_complete or boottime_s() > due_by:
            return snapshot
        time.sleep(_FIRST_READ_EVERY_S)


def _print(snapshot: Snapshot, *, as_json: bool) -> None:
    if as_json:
        console.say(orjson.dumps(snapshot, option=orjson.OPT_INDENT_2).decode())
        return
    for line in format_snapshot(snapshot):
        console.say(line)


def _watch(snapshot: Snapshot, read: Callable[[], Snapshot], every_s: float) -> None:
    """Draw snapshots until Ctrl-C, each in the place of the one before."""
    try:
        while True:
            width, height = _terminal_size()
            lines = [line[:width] for line in format_snapshot(snapshot)][: height - 1]
            click.clear()
            for line in lines:
                console.say(line)
            time.sleep(every_s)
            snapshot = read()
    except KeyboardInterrupt:
        console.say("")


def _terminal_size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.columns, max(size.lines, 2)
