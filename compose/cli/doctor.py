"""``bucketd doctor``: what ``bucketd up`` needs, looked at one by one, each fault with what mends it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from compose import doctor_checks
from compose.cli import console
from compose.errors import OperatorError


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data and logs are kept; .bucket of the project unless said.",
)
def doctor(*, data: Path | None) -> None:
    """Check this machine, and name the fix for each fault; the exit code is 1 where there is any."""
    home = console.project_root()
    faults = 0
    for check in doctor_checks.checks(home, (data or home / ".bucket").resolve(), os.environ):
        try:
            console.print_ok(check.name, check.run())
        except OperatorError as trouble:
            faults += 1
            console.print_failure(check.name, trouble)
    if faults:
        sys.exit(1)
