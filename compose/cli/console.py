"""How bucketd speaks to a person: ticked lines, warnings, and troubles with what mends them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import compose
from compose.errors import Trouble


def home() -> Path:
    """Answer the project's root, or the present directory where Bucket is installed without its sources."""
    root = Path(compose.__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def tick(name: str, said: str, seconds: float | None = None) -> None:
    """Show that ``name`` is well."""
    took = "" if seconds is None else f"{seconds:6.1f} s"
    click.echo(f"{click.style(_sign('✓', 'ok'), fg='green')} {name:<16} {said:<34}{took}".rstrip())


def cross(name: str, trouble: Trouble) -> None:
    """Show what is wrong with ``name`` and what mends it, on stderr."""
    click.echo(f"{click.style(_sign('✗', 'no'), fg='red')} {name:<16} {trouble}", err=True)
    for line in trouble.fix.splitlines():
        click.echo(f"    {line}", err=True)


def warn(sentence: str) -> None:
    """Show a warning, on stderr."""
    click.echo(f"{click.style('!', fg='yellow')} {sentence}", err=True)


@contextmanager
def ticking(name: str) -> Iterator[list[str]]:
    """Tick ``name`` when the block is through, with its seconds and what the block put into the list."""
    began = time.monotonic()
    said: list[str] = []
    yield said
    tick(name, " ".join(said), time.monotonic() - began)


def _sign(sign: str, plain: str) -> str:
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return plain
    return sign
