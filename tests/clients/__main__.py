"""``python -m tests.clients [NAME ...]``: the checks of these names, or all: each against one real stack."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from compose.embedded.group_reaper import GroupReaper
from tests.clients.checks import CHECKS
from tests.clients.toolbox import CommandFailed, Toolbox
from tests.stack import Stack


def main() -> int:
    """Run the checks; return 1 if one fails, with the output of the command that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CHECKS))
    names = parser.parse_args().names or list(CHECKS)
    if unknown := set(names) - set(CHECKS):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(CHECKS)}")
    failed = 0
    with (
        tempfile.TemporaryDirectory(prefix="bucket-clients-") as root,
        GroupReaper() as group_reaper,
        closing(Stack(Path(root), group_reaper)) as stack,
    ):
        stack.start_all()
        toolbox = Toolbox(Path(root))
        for name in names:
            began = time.monotonic()
            try:
                verdict = CHECKS[name](toolbox, stack.url)
            except CommandFailed as error:
                failed += 1
                verdict = f"FAILED\n{error}"
            sys.stdout.write(f"{name:<22} {time.monotonic() - began:5.0f} s  {verdict}\n")
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
