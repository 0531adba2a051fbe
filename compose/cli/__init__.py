"""``bucketd``, the command line for operators of Bucket; it never takes part in a run."""

from __future__ import annotations

import click

from compose.cli.agents import agents
from compose.cli.dead_letters import dead_letters
from compose.cli.doctor import doctor
from compose.cli.up import up


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bucket")
def main() -> None:
    """Start and operate Bucket."""


main.add_command(up)
main.add_command(doctor)
main.add_command(dead_letters)
main.add_command(agents)
