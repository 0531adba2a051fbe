"""What goes wrong when the stack is stood up, each told with what mends it."""

from __future__ import annotations

from shared.errors import BucketError


class OperatorError(BucketError):
    """The stack cannot be stood up; ``fix`` is what a person can do about it, in one line or more."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.fix = fix
        self.add_note(fix)  # so that a traceback, in a test say, shows it too

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.message, self.fix)


def _rebuild(message: str, fix: str) -> OperatorError:
    return OperatorError(message, fix=fix)
