"""``bucketd doctor``: what ``bucketd up`` needs, looked at one by one, each fault with what mends it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from compose import doctor_checks
from compose.cli import console
from compose.errors import Trouble


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data and logs are kept; .bucket of the project unless said.",
)
def doctor(*, data: Path | None) -> None:
    """Check this machine, and name the fix for each fault; the exit code is 1 where there is any."""
    home = console.home()
    faults = 0
    for check in doctor_checks.checks(home, (data or home / ".bucket").resolve(), os.environ):
        try:
            console.tick(check.name, check.look())
        except Trouble as trouble:
            faults += 1
            console.cross(check.name, trouble)
    if faults:
        sys.exit(1)
