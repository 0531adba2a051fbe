"""``bucketd doctor``: checks everything that ``bucketd up`` needs, and prints the fix for each fault."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from compose import doctor_checks
from compose.cli import console
from compose.operator_error import OperatorError


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data and logs are kept; by default .bucket in the project.",
)
def doctor(*, data: Path | None) -> None:
    """Check this machine, and print the fix for each fault; the exit code is 1 if there is any."""
    home = console.project_root()
    faults = 0
    for check in doctor_checks.checks(home, (data or home / ".bucket").resolve(), os.environ):
        try:
            console.print_ok(check.name, check.run())
        except OperatorError as error:
            faults += 1
            console.print_failure(check.name, error)
    if faults:
        sys.exit(1)
