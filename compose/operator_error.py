"""The error of the operator's commands, which carries a message and a fix."""

from __future__ import annotations

from shared.errors import BucketError


class OperatorError(BucketError):
    """The stack cannot start or a command cannot run; ``fix`` says in one or more lines what a person can do."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.fix = fix
        self.add_note(fix)  # so that a traceback shows it too, for example in a test
