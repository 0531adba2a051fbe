"""Errors: the exit code of each, and how it is shown to a person or, with ``--json``, to a program."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Final

import click

from bucket_client.cli.output import Output, json_text, message, safe
from bucket_client.cli.run_texts import failure_text, log_line_text
from bucket_client.cli.session import Session
from bucket_client.errors import (
    BucketError,
    BucketWarning,
    Conflict,
    ExecutionFailed,
    Forbidden,
    Invalid,
    NotFound,
    ServerFault,
    StateFileError,
    Timeout,
    Unavailable,
)

COMPLETED: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
REFUSED: Final = 4
TIMED_OUT: Final = 5
INTERRUPTED: Final = 130


class Interrupted(Exception):
    """The command was ended by Ctrl-C; the message says what goes on, and how to come back."""


EXIT_CODES: Final = (
    (COMPLETED, "completed: the run, or what the command was asked to do"),
    (FAILED, "failed: the run failed or was cancelled, or a check failed"),
    (USAGE, "usage: the command line, a file or its content is wrong"),
    (UNREACHABLE, "unreachable: Bucket did not reply, or cannot serve now"),
    (REFUSED, "refused: Bucket refused the request, or does not know the id"),
    (TIMED_OUT, "timed out: the run goes on"),
    (INTERRUPTED, "Ctrl-C; the run goes on"),
)
_BY_ERROR: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (Interrupted, INTERRUPTED, "interrupted"),
    (ExecutionFailed, FAILED, "failed"),
    (Timeout, TIMED_OUT, "timed_out"),
    (StateFileError, USAGE, "state_file"),
    (Unavailable, UNREACHABLE, "unreachable"),
    (ServerFault, UNREACHABLE, "server_fault"),
    (NotFound, REFUSED, "not_found"),
    (Invalid, REFUSED, "invalid"),
    (Conflict, REFUSED, "conflict"),
    (Forbidden, REFUSED, "forbidden"),
    (click.ClickException, USAGE, "usage"),
    (OSError, USAGE, "file"),
)
_LOG_LINES_SHOWN: Final = 5
_NEEDS_KEY: Final = "set BUCKET_API_KEY to a key that an admin of Bucket has made; bucket config shows what is set"


def exit_code_help() -> str:
    """Return the table of exit codes for ``--help``."""
    return "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES)


def report(error: Exception, session: Session) -> int:
    """Show an error on stderr and return the exit code that belongs to it."""
    code, error_code = next((row[1:] for row in _BY_ERROR if isinstance(error, row[0])), (FAILED, "internal"))
    if session.json or "--json" in session.arguments:  # a usage error may come before the option was read
        message(json_text(_document_of(error, error_code)))
    else:
        _show(error, session.output)
    return code


def show_warnings() -> None:
    """Show each warning of the server as one line on stderr, once."""
    shown: set[str] = set()
    show_others = warnings.showwarning

    def show(*arguments: Any, **more: Any) -> None:
        warning, category = arguments[:2]
        if not issubclass(category, BucketWarning):
            show_others(*arguments, **more)
        elif (text := safe(warning)) not in shown:
            shown.add(text)
            message(f"warning: {text}")

    warnings.simplefilter("always", BucketWarning)
    warnings.showwarning = show


def _show(error: Exception, output: Output) -> None:
    if isinstance(error, Interrupted):
        message(str(error))
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n")
    label = output.paint("error:", "red", sys.stderr)
    message(f"{label} {_sentence_of(error)}")
    for line in _more_of(error):
        message(f"  {line}")


def _sentence_of(error: Exception) -> str:
    if isinstance(error, ExecutionFailed):
        return failure_text(error.execution)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.filename is not None:
        return safe(f"{error.filename}: {error.strerror}")
    return safe(error.message if isinstance(error, BucketError) else error)


def _more_of(error: Exception) -> list[str]:
    """Return the lines below an error: its places, its codes, the last log lines of its run, and what to do."""
    lines: list[str] = []
    if isinstance(error, ExecutionFailed):
        lines += [log_line_text(line, short=True) for line in error.execution.logs[-_LOG_LINES_SHOWN:]]
    elif isinstance(error, BucketError):
        lines += [safe(f"{detail['pointer']}: {detail.get('message')}") for detail in _new_details(error)]
        facts = {"code": error.error_code, "status": error.status, "request": error.request_id}
        known = [f"{name} {safe(value)}" for name, value in facts.items() if value is not None]
        lines += [", ".join(known)] if known else []
    return lines + _notes_of(error)


def _new_details(error: BucketError) -> list[Any]:
    """Return the faults that have a pointer and that the message does not tell already."""
    return [
        detail
        for detail in error.details
        if "pointer" in detail and (len(error.details) > 1 or str(detail["pointer"]) not in error.message)
    ]


def _notes_of(error: Exception) -> list[str]:
    notes: list[str] = getattr(error, "__notes__", [])
    if isinstance(error, Forbidden) and error.error_code == "unauthenticated":
        return [_NEEDS_KEY, *notes]
    return notes


def _document_of(error: Exception, error_code: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "error_code": error_code,
        "message": str(error),
        "status": None,
        "request_id": None,
        "pointers": [],
        "hints": _notes_of(error),
    }
    if isinstance(error, BucketError):
        document |= {
            "error_code": error.error_code or error_code,
            "message": failure_text(error.execution) if isinstance(error, ExecutionFailed) else error.message,
            "status": error.status,
            "request_id": error.request_id,
            "pointers": error.pointers,
        }
    elif isinstance(error, click.ClickException | OSError):
        document["message"] = _sentence_of(error)
    return document
