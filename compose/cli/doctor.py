"""``bucketd doctor``: checks what ``bucketd up`` needs, or a deployment's servers, and prints a fix for each fault."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from compose import doctor_checks
from compose.cli import console
from compose.operator_error import OperatorError


@click.command()
@console.data_option
def doctor(*, data: Path) -> None:
    """Check this machine, and print the fix for each fault; the exit code is 1 if there is any."""
    faults = 0
    for name, check in doctor_checks.checks(console.project_root(), data, os.environ, console.print_warning):
        try:
            console.print_ok(name, check())
        except OperatorError as error:
            faults += 1
            console.print_failure(name, error)
    if faults:
        sys.exit(1)
