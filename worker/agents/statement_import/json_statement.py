"""Reads JSON exports: a list of objects, or an object with such a list, by the keys that banks and tools use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any, Final, NoReturn

from worker.agent_errors import InvalidInputError

from .column_names import words
from .row_signs import Row
from .statement_amounts import minor_units_of
from .statement_record import ImportedStatement, UnreadableCell, clean, quote
from .statement_table import AMOUNT_ROLES, DATE_ROLES, TableFacts, read_table

_LISTS: Final = words(
    "transactions data items results records entries operations bookings booked accounts account statements payload "
    "response content rows movements feeditems latesttransactions"
)
_PENDING_LISTS: Final = frozenset(("pending", "information", "removed"))
OBJECTS_MAX: Final = 100_000
_DEPTH_MAX: Final = 6
_NUMBER_MAX_CHARS: Final = 40
_ROLES: Final[Mapping[str, str]] = {
    name: role
    for role, names in {
        "booked": "bookingdate bookeddate posteddate postingdate postedat completedat completeddate settledat "
        "settlementtime bookingdatetime dateposted settled",
        "date": "date transactiondate datetime timestamp transactiontime created createdat createdon time datum "
        "buchungstag buchungsdatum fecha transactiondatetime",
        "valued": "valuedate valuedatetime",
        "started": "startedat starteddate authorizeddate",
        "amount": "amount transactionamount value betrag montant importe bedrag sum",
        "net": "net netamount",
        "gross": "gross",
        "minor": "amountminor minoramount amountcents amountincents cents minorunits amountinminorunits "
        "amountminorunits amountpence centamount",
        "debit": "debit debitamount moneyout withdrawal paidout",
        "credit": "credit creditamount moneyin deposit paidin",
        "sign": "creditdebitindicator creditdebit debitcredit direction side drcr crdr",
        "kind": "type transactiontype",
        "category": "category",
        "balance": "balance runningbalance balanceafter balanceaftertransaction accountbalance saldo",
        "currency": "currency isocurrencycode currencycode transactioncurrency waehrung ccy",
        "bank_id": "id transactionid internaltransactionid uuid uid fitid externalid feeditemuid entryreference",
        "account": "account accountid accountnumber iban",
        "status": "status state",
        "fee": "fee fees",
        "payee": "payee payeename merchant merchantname counterparty counterpartyname creditorname debtorname name",
        "text": "description narrative memo reference note notes details remittanceinformationunstructured title "
        "additionalinformation verwendungszweck",
    }.items()
    for name in names.split()
}
_TEXT_ROLES: Final = frozenset(("payee", "text"))
_MONEY_ROLES: Final = frozenset(("amount", "net", "gross", "balance", "debit", "credit", "fee", "minor"))
_NAME_KEYS: Final = ("name", "displayName", "description")
_MINOR_WORDS: Final = frozenset(("minor", "cents", "pence", "minorunits"))


@dataclass(frozen=True, slots=True)
class _Context:
    """What the objects around a transaction say."""

    account: str = ""
    currency: str = ""
    is_minor: bool = False
    is_pending: bool = False


def read_json(text: str, statement: ImportedStatement, options: dict[str, Any]) -> None:
    """Read a JSON export; raises InvalidInputError if it is no JSON, or has no list of transactions."""
    document = _parse(text)
    statement.place = "object"
    objects = list(islice(_objects_of(document, _Context(), 0), OBJECTS_MAX + 1))
    if len(objects) > OBJECTS_MAX:
        raise InvalidInputError(f"the JSON has more than {OBJECTS_MAX:,} objects: split it")
    if not objects and not _has_list(document):
        raise InvalidInputError(
            "the JSON has no list of transactions: it must be a list of objects, or an object with one under "
            f"transactions, data, items or the like; this is {_shape_of(document)}"
        )
    rows = []
    for number, (found, context) in enumerate(objects, 1):
        try:
            rows.append(_row_of(number, found, context))
        except UnreadableCell as error:
            statement.leave(number, str(error))
    if rows and not any(row.cells.keys() & set(DATE_ROLES) for row in rows):
        raise InvalidInputError(f"no object of the JSON has a date; the first is {_shape_of(objects[0][0])}")
    _note_whole_amounts(rows, statement)
    read_table(rows, TableFacts(**options), statement)


def _parse(text: str) -> Any:
    def refuse(name: str) -> NoReturn:
        raise InvalidInputError(f"the JSON has {name}, which is no number")

    def exact(number: str) -> Decimal:
        if len(number) > _NUMBER_MAX_CHARS:
            raise InvalidInputError(
                f"the JSON has a number of more than {_NUMBER_MAX_CHARS} characters: {quote(number)}"
            )
        return Decimal(number)

    try:
        return json.loads(text, parse_float=exact, parse_int=exact, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"the JSON cannot be read: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise InvalidInputError("the JSON is nested too deeply") from None


def _objects_of(
    document: Any, context: _Context, depth: int, *, is_of_accounts: bool = False
) -> Iterator[tuple[Any, _Context]]:
    """Yield each object of each list that can be one of transactions, with what stands around it.

    A list of accounts may hold the transactions of each, or only describe them.
    """
    if depth > _DEPTH_MAX:
        return
    if isinstance(document, list):
        for item in document:
            inner = _lists_in(item) if isinstance(item, dict) and not _is_transaction(item) else {}
            if inner:
                yield from _objects_of(item, context, depth + 1)
            elif not is_of_accounts or (isinstance(item, dict) and _is_transaction(item)):
                yield item, context
    elif isinstance(document, dict):
        here = _context_of(document, context)
        for name, inner in _lists_in(document).items():
            is_pending = here.is_pending or name in _PENDING_LISTS
            inner_context = _with_pending(here, is_pending)
            yield from _objects_of(inner, inner_context, depth + 1, is_of_accounts=name.startswith("account"))


def _with_pending(context: _Context, is_pending: bool) -> _Context:
    """Return the context for a list of transactions that are booked or not."""
    return _Context(context.account, context.currency, context.is_minor, is_pending)


def _lists_in(document: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are, or may hold, a list of transactions."""
    return {
        _plain(key): value
        for key, value in document.items()
        if _plain(key) in _LISTS | _PENDING_LISTS and isinstance(value, list | dict)
    }


def _is_transaction(item: dict[str, Any]) -> bool:
    roles = {_ROLES.get(_plain(key)) for key in item}
    return bool(roles & set(DATE_ROLES)) and bool(roles & set(AMOUNT_ROLES))


def _has_list(document: Any) -> bool:
    return isinstance(document, list) or (
        isinstance(document, dict) and any(map(_has_list, _lists_in(document).values()))
    )


def _context_of(document: dict[str, Any], outer: _Context) -> _Context:
    plain = {_plain(key): value for key, value in document.items()}
    account = next(
        (plain[key] for key in ("iban", "accountid", "accountnumber") if isinstance(plain.get(key), str)), ""
    )
    nested = plain.get("account")
    if not account and isinstance(nested, dict):
        account = next((str(nested[key]) for key in ("iban", "id", "number") if nested.get(key)), "")
    elif not account and isinstance(nested, str):
        account = nested
    currency = plain.get("currency")
    return _Context(
        clean(account) or outer.account,
        clean(currency) if isinstance(currency, str) else outer.currency,
        outer.is_minor or _says_minor(plain),
        outer.is_pending,
    )


def _says_minor(plain: Mapping[str, Any]) -> bool:
    """Return whether an object declares that its amounts are in minor units, such as cents."""
    unit = plain.get("unit", plain.get("amountunit", plain.get("units")))
    declared = isinstance(unit, str) and _plain(unit) in _MINOR_WORDS
    # Stripe's documentation gives these objects amounts in the currency's smallest unit.
    return declared or plain.get("minorunits") is True or plain.get("object") == "balance_transaction"


def _row_of(number: int, found: Any, context: _Context) -> Row:
    if not isinstance(found, dict):
        raise UnreadableCell(f"not an object but {_shape_of(found)}")
    plain = {_plain(key): value for key, value in found.items()}
    if context.is_pending or plain.get("pending") is True:
        raise UnreadableCell("not booked: it is pending")
    row = Row(number)
    is_minor = context.is_minor or _says_minor(plain)
    for name, value in plain.items():
        _take(row, _ROLES.get(name), value, is_minor)
    for role, around in (("account", context.account), ("currency", context.currency)):
        if around:
            row.cells.setdefault(role, around)
    if "isocurrencycode" in plain and ("paymentchannel" in plain or "personalfinancecategory" in plain):
        _turn(row)
    return row


def _take(row: Row, role: str | None, value: Any, is_minor: bool) -> None:
    """Take a value by what its key means."""
    if role in _TEXT_ROLES:
        if text := _text_of(value):
            row.texts.insert(0 if role == "payee" else len(row.texts), text)
    elif role in _MONEY_ROLES and role is not None:
        _take_money(row, role, value, is_minor)
    elif role is not None and role not in row.cells and isinstance(value, str | Decimal):
        row.cells[role] = value


def _take_money(row: Row, role: str, value: Any, is_minor: bool) -> None:
    """Take an amount: a number, a text, or an object with the amount and its currency."""
    if isinstance(value, dict):
        plain = {_plain(key): inner for key, inner in value.items()}
        is_minor |= _says_minor(plain) or "minorunits" in plain
        currency = next((plain[key] for key in ("currency", "currencycode") if isinstance(plain.get(key), str)), None)
        if currency and role != "balance":
            row.cells["currency"] = currency
        keys = ("minorunits", "amount", "value", "centamount")
        value = next((plain[key] for key in keys if isinstance(plain.get(key), str | Decimal)), None)
    if not isinstance(value, str | Decimal):
        return
    if is_minor and role in {"amount", "net"}:
        # The net amount, without the fee, is what the account moves by.
        row.cells["minor"] = value if role == "net" else row.cells.get("minor", value)
    elif role not in row.cells and (not is_minor or role == "minor"):
        # Of two keys with one meaning the first counts. A balance in minor units is left out: it is for people.
        row.cells[role] = value


def _turn(row: Row) -> None:
    """Turn the sign of an amount of Plaid, which documents that money out is positive."""
    amount = row.cells.get("amount")
    if isinstance(amount, Decimal):
        row.cells["amount"] = amount.copy_negate()


def _note_whole_amounts(rows: list[Row], statement: ImportedStatement) -> None:
    amounts = [row.cells["amount"] for row in rows if isinstance(row.cells.get("amount"), Decimal)]
    places = {minor_units_of(row.text("currency").upper() or None) for row in rows}
    if amounts and places != {0} and all(isinstance(a, Decimal) and a == a.to_integral_value() for a in amounts):
        statement.note(
            "every amount is a whole number, and nothing declares cents: read as whole units of the currency"
        )


def _text_of(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(filter(None, map(_text_of, value[:20])))
    if isinstance(value, dict):
        return next((str(value[key]) for key in _NAME_KEYS if isinstance(value.get(key), str)), "")
    return value if isinstance(value, str) else ""


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.casefold()[:60])


def _shape_of(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {quote(', '.join(value)) if value else 'none'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "a number" if isinstance(value, Decimal) else quote(value)
