"""The command ``bucket check-integration``."""

from __future__ import annotations

from pathlib import Path

import click

from bucket_client.cli.error_report import FAILED
from bucket_client.cli.session import Session, SessionCommand, pass_session
from bucket_client.integration_check.checks import check_integration
from bucket_client.integration_check.definition import DefinitionError, load_definition
from bucket_client.integration_check.report import CheckResult


@click.command("check-integration", cls=SessionCommand)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--one-at-a-time", is_flag=True, help="Run the command alone each time: its runs share files or locks.")
@pass_session
@click.pass_context
def check_command(context: click.Context, session: Session, file: Path, *, one_at_a_time: bool) -> None:
    """Check an integration of yours: FILE is its integration.toml.

    Its command is run several times behind a proxy that records its requests, loses a reply, is busy, restarts and
    hangs. It takes a minute or two. The exit code is 1 if a check fails.
    """
    try:
        definition = load_definition(file)
    except DefinitionError as error:
        raise click.UsageError(str(error)) from None
    settings = session.settings()

    def show(check: CheckResult) -> None:
        session.output.note(f"{check.outcome}: {check.name}")

    report = check_integration(definition, settings.url, settings.api_key, show, one_at_a_time=one_at_a_time)
    if session.json:
        session.output.json(report.as_json())
    else:
        session.output.data(report.as_text())
    if not report.passed:
        context.exit(FAILED)
