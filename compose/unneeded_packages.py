"""Lists the installed packages that running Bucket does not need, one per line; the image build removes them."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TRACING: Final = "otel"  # an extra that the image has: variables of OpenTelemetry alone switch it on


def unneeded_packages() -> list[str]:
    """Return all installed packages that Bucket does not require, directly or indirectly; without pip."""
    installed = {canonicalize_name(distribution.name) for distribution in metadata.distributions()}
    return sorted(installed - required_packages("bucket", extra=TRACING) - {"pip"})


def required_packages(root: str, extra: str = "") -> set[str]:
    """Return the canonical names of ``root`` and of all its requirements on this machine, with one extra of its own."""
    visited: set[tuple[str, str]] = set()
    pending = [(canonicalize_name(root), own) for own in ("", extra)]
    while pending:
        name, of_extra = pending.pop()
        if (name, of_extra) in visited:
            continue
        visited.add((name, of_extra))
        for requirement in map(Requirement, metadata.requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": of_extra}):
                required = canonicalize_name(requirement.name)
                pending += [(required, required_extra) for required_extra in ("", *requirement.extras)]
    return {name for name, _ in visited}


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}\n" for name in unneeded_packages()))
