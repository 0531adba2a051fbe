"""How bucketd speaks to a person: ticked lines, warnings, and troubles with what mends them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import compose
from compose.errors import OperatorError


def project_root() -> Path:
    """Answer the project's root, or the present directory where Bucket is installed without its sources."""
    root = Path(compose.__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def print_ok(name: str, detail: str, seconds: float | None = None) -> None:
    """Show that ``name`` is well."""
    took = "" if seconds is None else f"{seconds:6.1f} s"
    click.echo(f"{click.style(_symbol_or_ascii('✓', 'ok'), fg='green')} {name:<16} {detail:<34}{took}".rstrip())


def print_failure(name: str, error: OperatorError) -> None:
    """Show what is wrong with ``name`` and what mends it, on stderr."""
    click.echo(f"{click.style(_symbol_or_ascii('✗', 'no'), fg='red')} {name:<16} {error}", err=True)
    for line in error.fix.splitlines():
        click.echo(f"    {line}", err=True)


def print_warning(sentence: str) -> None:
    """Show a warning, on stderr."""
    click.echo(f"{click.style('!', fg='yellow')} {sentence}", err=True)


@contextmanager
def timed_step(name: str) -> Iterator[list[str]]:
    """Tick ``name`` when the block is through, with its seconds and what the block put into the list."""
    began = time.monotonic()
    said: list[str] = []
    yield said
    print_ok(name, " ".join(said), time.monotonic() - began)


def _symbol_or_ascii(sign: str, plain: str) -> str:
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return plain
    return sign
