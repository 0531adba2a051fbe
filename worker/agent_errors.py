"""What an agent may raise to say whether another attempt could help; anything else it raises is permanent."""

from __future__ import annotations


class TransientError(Exception):
    """The fault may pass: the step is tried again as its retry policy says."""


class PermanentError(Exception):
    """Another attempt would fail the same way: the step fails now."""
