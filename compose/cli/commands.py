"""The command group of ``bucketd``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click

from compose.cli.agents import agents
from compose.cli.dead_letters import dead_letters
from compose.cli.doctor import doctor
from compose.cli.runs import runs
from compose.cli.up import up

_WITH_API: Final[Mapping[str, str]] = {
    "audit": "compose.cli.audit",
    "integrations": "compose.cli.integrations",
    "keys": "compose.cli.keys",
    "routes": "compose.cli.routes",
    "top": "compose.top.top_command",
}
"""Commands that use code of the API, by their modules, where each has its own name."""


class CommandGroup(click.Group):
    """A group that imports the commands with code of the API only when they are used: no other has to wait for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted([*super().list_commands(ctx), *_WITH_API])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name; None if there is none."""
        if cmd_name not in _WITH_API:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(_WITH_API[cmd_name]), cmd_name)
        return command


@click.group(
    "bucketd",
    cls=CommandGroup,
    commands=[up, doctor, dead_letters, runs, agents],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="bucket")
def command_group() -> None:
    """Start and operate Bucket."""
