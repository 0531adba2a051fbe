"""Whole numbers of an input: JSON Schema takes 5.0 for an integer, and Python does not."""

from __future__ import annotations

from typing import Any


def with_integers(value: Any) -> Any:
    """Return a copy of a JSON value in which each whole number is an ``int``, also if it was written as 5.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: with_integers(child) for name, child in value.items()}
    return [with_integers(child) for child in value] if isinstance(value, list) else value
