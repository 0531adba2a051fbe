"""``bucketd agents check``: loads agents as a worker does, and reports everything that is wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from compose.cli import console
from compose.operator_error import OperatorError
from shared.errors import SpecError


@click.group()
def agents() -> None:
    """Check agents."""


@agents.command()
@click.argument(
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=False,
    envvar="BUCKET_AGENTS_DIR",
)
def check(directory: Path | None) -> None:
    """Load every agent, the built-in ones and those of DIRECTORY; the exit code is 1 if one is wrong."""
    from worker.agent_loader import check_agents  # here, because the other commands need nothing of the worker

    try:
        for line in check_agents(directory):
            click.echo(line)
    except SpecError as error:
        console.print_failure("agents", OperatorError("not every agent can be loaded", fix=error.message))
        sys.exit(1)
