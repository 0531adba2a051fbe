"""The command group of ``bucket``, and its main function: it turns every expected error into an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

import click

from bucket_client.cli.catalogue_commands import agents, baskets, completion, config, connectors, health
from bucket_client.cli.error_report import COMPLETED, Interrupted, exit_code_help, report, show_warnings
from bucket_client.cli.map_command import map_file
from bucket_client.cli.read_commands import list_runs, logs, show
from bucket_client.cli.run_commands import cancel, retry, run_basket, watch
from bucket_client.cli.session import Session, SessionGroup
from bucket_client.errors import BucketError
from bucket_client.integration_check.check_command import check_command

_TERMINATED: Final = 128 + signal.SIGTERM
_COMMANDS: Final = [
    run_basket,
    watch,
    logs,
    list_runs,
    show,
    cancel,
    retry,
    map_file,
    agents,
    baskets,
    health,
    config,
    connectors,
    check_command,
    completion,
]


class _InOrder(SessionGroup):
    """A group that lists its commands in the order in which a person needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return list(self.commands)


@click.group(
    "bucket",
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=exit_code_help(),
)
@click.version_option(package_name="bucket-client")
def command_group() -> None:
    """Run baskets of Bucket, and see what becomes of them.

    The address is in BUCKET_URL (http://localhost:8000 by default), the key in BUCKET_API_KEY. Data goes to stdout;
    progress, notes and warnings go to stderr.
    """


for _command in _COMMANDS:
    command_group.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; the codes are those of ``EXIT_CODES``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character is no reason to end
    signal.signal(signal.SIGTERM, _end)
    show_warnings()
    session = Session(tuple(arguments))
    try:
        code: Any = command_group.main(args=list(arguments), prog_name="bucket", standalone_mode=False, obj=session)
    except (click.Abort, KeyboardInterrupt):
        return report(Interrupted("interrupted"), session)
    except (click.ClickException, BucketError, Interrupted, OSError) as error:
        return report(error, session)
    return code if isinstance(code, int) else COMPLETED


def _end(_number: int, _frame: FrameType | None) -> None:
    """End the process in order, so that a bar does not leave the terminal without its cursor."""
    sys.exit(_TERMINATED)
