"""Suggestions for misspelt names ("did you mean ...?"), by string similarity (difflib)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

SIMILARITY_MIN: Final = 0.6
LOOSE_SIMILARITY_MIN: Final = 0.5
"""For long names with a common prefix, such as those of settings."""


def closest_matches(
    name: str, candidates: Iterable[str], limit: int = 1, similarity_min: float = SIMILARITY_MIN
) -> list[str]:
    """Return at most ``limit`` candidates that resemble ``name``, the most similar first."""
    return difflib.get_close_matches(name, list(candidates), n=limit, cutoff=similarity_min)
