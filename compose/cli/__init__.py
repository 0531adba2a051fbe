"""``bucketd``, the command line for operators of Bucket; it never takes part in a run."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``bucketd``; if its packages cannot be imported, say which one and what to do, whatever the command is."""
    # Imported here, because people run `bucketd doctor` when an import fails.
    try:
        from compose.cli.commands import command_group
    except ImportError as error:
        from compose.cli.broken_install import describe_broken_install

        sys.exit(describe_broken_install(error))
    command_group()
