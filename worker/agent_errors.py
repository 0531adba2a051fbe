"""Exceptions by which an agent says whether another attempt could help; most other exceptions count as permanent."""

from __future__ import annotations


class TransientError(Exception):
    """The fault may pass: the step is tried again as its retry policy says, at the earliest after ``wait_s`` seconds.

    If that exceeds what the policy lets a step wait, it is not tried again.
    """

    def __init__(self, *args: object, wait_s: float = 0.0) -> None:
        super().__init__(*args)
        self.wait_s = wait_s


class PermanentError(Exception):
    """Another attempt would fail the same way: the step fails now."""


class InvalidInputError(PermanentError):
    """The input cannot be worked with, in a way that no schema can express: the step fails with ``input_invalid``."""
