"""Names the installed packages that running Bucket does not need, one a line; the image takes them away."""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def unneeded_packages() -> list[str]:
    """Return all installed packages that Bucket requires neither itself nor through others; pip is left out."""
    installed = {canonicalize_name(each.name) for each in metadata.distributions()}
    return sorted(installed - required_packages("bucket") - {"pip"})


def required_packages(root: str) -> set[str]:
    """Answer ``root`` and what it requires on this machine, without its own extras, by canonical names."""
    found: set[tuple[str, str]] = set()
    left = [(canonicalize_name(root), "")]
    while left:
        name, extra = left.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for requirement in map(Requirement, metadata.requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                left += [(canonicalize_name(requirement.name), wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in found}


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}\n" for name in unneeded_packages()))
