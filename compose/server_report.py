"""What a check of a server has found: its version, and warnings; and the checks of a version that servers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from compose.operator_error import OperatorError

NO_REPLY_FIX: Final = "see that it runs, or unset it"


@dataclass(frozen=True, slots=True)
class ServerReport:
    """A server that can serve Bucket: its name and version for people ("Valkey 9.1.2"), and what should be changed."""

    version: str
    warnings: tuple[str, ...] = ()


def require_version(server: str, version: str, minimum: tuple[int, ...]) -> None:
    """Raise OperatorError if ``version`` is older than ``minimum``."""
    if _numbers(version) < minimum:
        required = ".".join(map(str, minimum))
        raise OperatorError(f"{server} {version} is too old", fix=f"use {server} {required} or newer")


def warnings_of_known_holes(server: str, version: str, fixed: Mapping[tuple[int, int], int]) -> list[str]:
    """Return a warning if ``version`` has known vulnerabilities.

    ``fixed`` names, for each release line that is still maintained, the first patch release without them.
    """
    numbers = _numbers(version)
    releases = [(*line, patch) for line, patch in fixed.items()]
    if numbers >= max(releases) or any(numbers[:2] == release[:2] and numbers >= release for release in releases):
        return []
    releases_text = ", ".join(".".join(map(str, release)) for release in releases)
    return [
        f"{server} {version} has known vulnerabilities, unless who built it has mended them; without: {releases_text}"
    ]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
