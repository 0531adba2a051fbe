"""Console output of bucketd: lines with a tick, warnings, and errors with their fixes.

Output is best effort: a stack goes on when nobody reads what it prints.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import compose
from compose.operator_error import OperatorError


def project_root() -> Path:
    """Return the project's root, or the current directory if Bucket is installed without its sources."""
    root = Path(compose.__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    default=lambda: project_root() / ".bucket",
    help="Where data and logs are kept; by default .bucket in the project.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def say(text: str, *, err: bool = False) -> None:
    """Print a line on stdout, or stderr; nothing if its reader is gone, for example the other end of a pipe."""
    try:
        click.echo(text, err=err)
    except OSError:
        # From now on nowhere, so that neither the next line nor the flush at the end fails.
        stream = sys.stderr if err else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_ok(name: str, detail: str, seconds: float | None = None) -> None:
    """Print a tick, ``name`` and ``detail``: this part is in order."""
    took = "" if seconds is None else f"{seconds:6.1f} s"
    say(f"{click.style(_symbol_or_ascii('✓', 'ok'), fg='green')} {name:<16} {detail:<34}{took}".rstrip())


def print_failure(name: str, error: OperatorError) -> None:
    """Print what is wrong with ``name``, and the fix, on stderr."""
    say(f"{click.style(_symbol_or_ascii('✗', 'no'), fg='red')} {name:<16} {error}", err=True)
    for line in error.fix.splitlines():
        say(f"    {line}", err=True)


def print_warning(sentence: str) -> None:
    """Print a warning on stderr."""
    say(f"{click.style('!', fg='yellow')} {sentence}", err=True)


@contextmanager
def timed_step(name: str) -> Iterator[list[str]]:
    """Print ``name`` with a tick at the end of the block, with its seconds and the details it put into the list."""
    began = time.monotonic()
    details: list[str] = []
    yield details
    print_ok(name, " ".join(details), time.monotonic() - began)


def _symbol_or_ascii(symbol: str, fallback: str) -> str:
    try:
        symbol.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return fallback
    return symbol
