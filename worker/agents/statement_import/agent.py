"""Reads a bank statement, whatever its format, into transactions; what cannot be read is told line by line."""

from __future__ import annotations

from typing import Any, Final

from worker.agent_errors import InvalidInputError
from worker.context import AgentContext

from .camt_statement import read_camt
from .csv_statement import read_csv
from .json_statement import read_json
from .mt940_statement import looks_like_mt940, read_mt940
from .ofx_statement import read_ofx
from .statement_record import LISTED_MAX, LISTED_MAX_BYTES, NOTES_MAX, ImportedStatement, quote

FORMATS: Final = ("csv", "ofx", "mt940", "camt053", "json")
_HEAD_CHARS: Final = 4096
# What a byte order mark looks like, read as UTF-8 and as Latin-1.
_BYTE_ORDER_MARKS: Final = ("\ufeff", "\u00ef\u00bb\u00bf")


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return the transactions of ``given["text"]``; raises InvalidInputError if the text is no statement."""
    text = given["text"]
    for mark in _BYTE_ORDER_MARKS:
        text = text.removeprefix(mark)
    if not text.strip():
        raise InvalidInputError("the text is empty")
    asked = given.get("format", "auto")
    statement_format = detect_format(text) if asked == "auto" else asked
    options = {"date_order": given.get("date_order", "auto"), "sign": given.get("sign", "auto")}
    statement = ImportedStatement()
    try:
        _read(text, statement_format, statement, options)
    except InvalidInputError as error:
        if asked != "auto":
            raise
        raise InvalidInputError(
            f"the text looked like {statement_format} (of {', '.join(FORMATS)}, by its beginning), and as that it "
            f"cannot be read: {error}"
        ) from error
    _log(statement, statement_format, ctx)
    return {
        "format": statement_format,
        "transactions": statement.transactions,
        "count": statement.count,
        "not_listed": statement.count - len(statement.transactions),
        "unread": sorted(statement.unread, key=lambda each: int(each["line"])),
        "unread_count": statement.unread_count,
        "notes": statement.notes,
    }


def detect_format(text: str) -> str:
    """Return the format that a text has by its beginning; csv if it is none of the others."""
    head = text[:_HEAD_CHARS].lstrip()
    upper = head.upper()
    if upper.startswith(("OFXHEADER", "<?OFX", "<OFX>")) or "<OFX>" in upper:
        return "ofx"
    if head.startswith("<"):
        return "camt053"
    if looks_like_mt940(head):
        return "mt940"
    if head.startswith(("[", "{")):
        return "json"
    return "csv"


def _read(text: str, statement_format: str, statement: ImportedStatement, options: dict[str, Any]) -> None:
    if statement_format == "csv":
        read_csv(text, statement, options)
    elif statement_format == "json":
        read_json(text, statement, options)
    elif statement_format == "ofx":
        read_ofx(text, statement)
    elif statement_format == "mt940":
        read_mt940(text, statement)
    elif statement_format == "camt053":
        read_camt(text, statement)
    else:
        raise InvalidInputError(f"format must be auto, {', '.join(FORMATS)}, not {quote(statement_format)}")


def _log(statement: ImportedStatement, statement_format: str, ctx: AgentContext) -> None:
    listed = len(statement.transactions)
    if statement.count > listed:
        message = (
            f"{statement.count - listed:,} transactions are not listed: an output has at most {LISTED_MAX:,} of "
            f"together {LISTED_MAX_BYTES // 2**20} MiB; import the statement in parts"
        )
        statement.notes[:] = [message, *statement.notes][:NOTES_MAX]
        ctx.log(message, level="warning")
    currencies = sorted({each["currency"] for each in statement.transactions if "currency" in each})
    if len(currencies) > 1:
        named = ", ".join(currencies)[:60]
        message = f"the transactions are in {len(currencies)} currencies, {named}: sums over all mix them"
        statement.note(message)
        ctx.log(message, level="warning")
    if statement.unread_count:
        ctx.log(f"{statement.unread_count} lines could not be read; unread says why", level="warning")
    for note in statement.notes[:10]:
        ctx.log(note)
    ctx.log(
        "imported a statement", format=statement_format, transactions=statement.count, unread=statement.unread_count
    )
