"""``bucket``, the command line for callers of Bucket: submits runs, waits for them, and shows what is there."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

_EXTRA: Final = ("click", "rich")
_USAGE: Final = 2
_INTERRUPTED: Final = 130


def main() -> None:
    """Run ``bucket`` and end the process with its exit code; without click or rich, say how to install them."""
    try:
        from bucket_client.cli.commands import run  # here, because it needs click

        if find_spec("rich") is None:  # it is imported only where something is drawn
            raise ModuleNotFoundError(name="rich")
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(f"error: the command bucket needs {missing}: pip install 'bucket-client[cli]'\n")
        sys.exit(_USAGE)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    sys.exit(run(sys.argv[1:]))
