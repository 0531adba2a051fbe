"""Exits with 1 if a redis-server, mongod, gunicorn, celery or bucketd of this checkout still runs; it kills none."""  # noqa: INP001 - a script

from __future__ import annotations

import os
import sys
from pathlib import Path

CHECKOUT = str(Path(__file__).resolve().parent.parent)
OURS = ("redis-server", "mongod", "gunicorn", "celery", "-m worker", "bucketd", "compose/embedded/")


def main() -> None:
    """Search all processes for ours, by their program, directory, command or environment."""
    leftovers = [leftover for entry in Path("/proc").glob("[0-9]*") if (leftover := _leftover(entry))]
    for leftover in leftovers:
        sys.stderr.write(f"left behind: {leftover}\n")
    sys.exit(bool(leftovers))


def _leftover(process: Path) -> str | None:
    if process.name == str(os.getpid()):
        return None
    try:
        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if not any(name in command for name in OURS):
            return None
        places = [command, (process / "environ").read_bytes().decode(errors="replace")]
        places += [str((process / name).readlink()) for name in ("cwd", "exe")]
    except OSError:
        return None  # it has just ended, or is another user's
    return f"{process.name} {command[:200]}" if any(CHECKOUT in place for place in places) else None


if __name__ == "__main__":
    main()
