"""JSON Pointer (RFC 6901): formatted for errors, parsed for the inputs of steps."""

from __future__ import annotations

from collections.abc import Iterable


def escape_token(token: str) -> str:
    """Escape one reference token for a pointer: ``~`` as ``~0`` and ``/`` as ``~1``."""
    return token.replace("~", "~0").replace("/", "~1")


def format_pointer(path: Iterable[str | int]) -> str:
    """Format ``path`` as a JSON Pointer, such as ``/a~1b/0``; an empty path is the whole document, ``""``."""
    return "".join(f"/{escape_token(str(part))}" for part in path)


def parse_pointer(pointer: str) -> list[str]:
    """Parse ``pointer``, which must be empty or begin with ``/``, into its unescaped reference tokens."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
