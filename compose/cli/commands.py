"""The command group of ``bucketd``."""

from __future__ import annotations

import click

from compose.cli.agents import agents
from compose.cli.audit import audit
from compose.cli.dead_letters import dead_letters
from compose.cli.doctor import doctor
from compose.cli.integrations import integrations
from compose.cli.keys import keys
from compose.cli.routes import routes
from compose.cli.runs import runs
from compose.cli.up import up


@click.group(
    "bucketd",
    commands=[up, doctor, dead_letters, runs, agents, keys, integrations, audit, routes],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="bucket")
def command_group() -> None:
    """Start and operate Bucket."""
