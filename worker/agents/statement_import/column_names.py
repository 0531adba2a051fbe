"""The names that banks give the columns of a statement, by what they mean; ``plain_name`` makes them comparable."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Final


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


_ENGLISH: Final[Mapping[str, str]] = {
    "booked": "booking date|posting date|posted date|post date|date posted|posted|completed date|date completed|"
    "finished on|date finished|process date|processed date|entry date|transaction posted date|settled date",
    "date": "date|transaction date|trans date|txn date|date time|datetime|timestamp|created on|created|"
    "date of transaction",
    "valued": "value date",
    "started": "started date|date started|authorised on|authorized on",
    "amount": "amount|transaction amount|sum|value",
    # What was taken from the account, if another column has the amount in the currency of the purchase.
    "net": "net|net amount|billing amount|billed amount|amount in account currency",
    "gross": "gross|gross amount",
    "debit": "debit|debits|debit amount|paid out|money out|withdrawal|withdrawals|withdrawal amount|withdrawal amt|"
    "amount debited|payments out|out",
    "credit": "credit|credits|credit amount|paid in|money in|deposit|deposits|deposit amount|deposit amt|"
    "amount credited|payments in",
    "sign": "debit credit|credit debit|dr cr|cr dr|d c|c d|debit credit indicator|credit debit indicator|"
    "balance impact|direction|debit or credit",
    "kind": "type|transaction type",
    "category": "category",
    "text": "description|transaction description|details|transaction details|narrative|memo|notes|reference|"
    "payment reference|particulars|remarks|purpose|narration|transaction remarks|title|"
    "label|notification text",
    "payee": "payee|payee name|name|merchant|merchant name|partner name|counter party|counterparty|"
    "counterparty name|from to",
    "balance": "balance|running balance|running bal|account balance|balance after|closing balance",
    "currency": "currency|ccy|account currency",
    "bank_id": "transaction id|txn id|transferwise id|id|fitid|unique id|transaction number|"
    "transaction reference number",
    "account": "account|account number|account no|account num|account iban",
    "status": "status|state",
    "fee": "fee|fees",
    "card_holder": "card member",
}
_GERMAN: Final[Mapping[str, str]] = {
    "booked": "buchungstag|buchungsdatum|buchung|datum buchung",
    "date": "datum|belegdatum|umsatzdatum|transaktionsdatum",
    "valued": "wertstellung|valutadatum|wertstellungsdatum|valuta",
    "amount": "betrag|umsatz|buchungsbetrag",
    "net": "netto",
    "gross": "brutto",
    "debit": "soll|lastschrift|belastung|ausgang|ausgaben|sollbetrag",
    "credit": "haben|gutschrift|eingang|einnahmen|habenbetrag",
    "sign": "soll haben|s h|soll haben kennzeichen",
    "kind": "umsatztyp|umsatzart|typ",
    "text": "verwendungszweck|buchungstext|beschreibung|buchungsdetails|vorgang|mitteilung|buchungshinweis|"
    "avisierungstext",
    "payee": "beguenstigter zahlungspflichtiger|begunstigter zahlungspflichtiger|name zahlungsbeteiligter|empfanger|"
    "empfaenger|auftraggeber empfanger|auftraggeber empfaenger|auftraggeber begunstigter|zahlungsempfanger|"
    "zahlungsempfanger in|zahlungspflichtige r",
    "balance": "saldo|kontostand|saldo nach buchung|kontostand nach buchung",
    "currency": "wahrung|waehrung",
    "bank_id": "transaktionscode|transaktions id|buchungsnummer",
    "account": "auftragskonto|konto|iban auftragskonto|bezeichnung auftragskonto",
    "status": "info",
    "fee": "gebuhr|gebuhren|gebuehr",
}
_FRENCH: Final[Mapping[str, str]] = {
    "booked": "date de comptabilisation|date comptabilisation|date comptable|date operation|date de l operation|"
    "date d operation|dateop",
    "date": "date",
    "valued": "date valeur|date de valeur|dateval",
    "amount": "montant|montant operation|montant de l operation",
    "debit": "debit|montant debit|sortie",
    "credit": "credit|montant credit|entree",
    "sign": "sens|debit credit",
    "text": "libelle|libelle operation|libelle de l operation|libelle simplifie|informations complementaires|"
    "nature de l operation",
    "payee": "tiers|beneficiaire|contrepartie",
    "balance": "solde",
    "currency": "devise",
    "bank_id": "numero d operation|id transaction",
    "account": "compte|numero de compte",
    "status": "etat|statut",
    "fee": "frais|commission",
}
_DUTCH: Final[Mapping[str, str]] = {
    "booked": "boekdatum|boekingsdatum|transactiedatum|uitvoeringsdatum",
    "date": "datum",
    "valued": "rentedatum|valutadatum",
    "amount": "bedrag|transactiebedrag",
    "debit": "af|uit|debet|afschrijving|bedrag af",
    "credit": "bij|bijschrijving|bedrag bij",
    "sign": "af bij|bij af|debet credit|credit debet",
    "kind": "mutatiesoort",
    "text": "omschrijving|mededelingen|mededeling|omschrijving 1|omschrijving 2|betalingskenmerk",
    "payee": "naam omschrijving|naam tegenpartij|tegenpartij|naam",
    "balance": "saldo na mutatie|saldo na trn|saldo na boeking|saldo",
    "currency": "munt|muntsoort",
    "bank_id": "transactienummer|volgnr|volgnummer|transactiereferentie",
    "account": "rekening|rekeningnummer|iban bban",
    "fee": "kosten",
}
_SPANISH: Final[Mapping[str, str]] = {
    "booked": "fecha operacion|fecha de operacion|fecha de la operacion|fecha contable|f operacion|fecha movimiento",
    "date": "fecha",
    "valued": "fecha valor|fecha de valor|f valor",
    "amount": "importe|cantidad|monto|importe movimiento",
    "debit": "cargo|cargos|debe|debito|debitos|adeudo|retiro|retiros",
    "credit": "abono|abonos|haber|credito|creditos|ingreso|ingresos|deposito|depositos",
    "sign": "cargo abono|debe haber",
    "kind": "tipo|tipo de movimiento",
    "text": "concepto|descripcion|observaciones|detalle|movimiento",
    "payee": "beneficiario|ordenante",
    "balance": "saldo",
    "currency": "divisa|moneda",
    "bank_id": "numero de operacion|id de transaccion",
    "account": "cuenta|numero de cuenta",
    "status": "estado",
    "fee": "comision|tarifa",
}
_OTHER: Final[Mapping[str, str]] = {
    "booked": "data operazione|data contabile|data movimento|data operacji|data ksiegowania",
    "date": "data|data lancamento|data transakcji",
    "valued": "data valuta|data valor|data waluty",
    "amount": "importo|valor|montante|belopp|kwota",
    "debit": "uscite|addebiti|dare",
    "credit": "entrate|accrediti|avere",
    "text": "descrizione|causale|descricao|historico|lancamento|text|opis|opis operacji|opis transakcji",
    "balance": "saldo po operacji|saldo po transakcji",
    "currency": "waluta",
}
_LANGUAGES: Final = (_ENGLISH, _GERMAN, _FRENCH, _DUTCH, _SPANISH, _OTHER)
_CURRENCY_CODES: Final = words(
    "aed ars aud bgn brl cad chf clp cny cop czk dkk eur gbp hkd huf idr ils inr isk jpy kes krw kwd mad mxn myr ngn "
    "nok nzd pen php pln ron rub sar sek sgd thb tnd try twd uah usd vnd zar"
)
_FILLERS: Final = frozenset(("in", "en", "euros", "euro", "utc"))
CURRENCIES: Final = frozenset(code.upper() for code in _CURRENCY_CODES)
"""The codes that count as a currency in a header or above the table."""


def plain_name(name: str) -> str:
    """Return a name in lower case, without accents and punctuation: "Af/Bij" is "af bij"."""
    if name.isascii() and name.isalpha():
        return name.lower()
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return " ".join(re.sub(r"[^a-z0-9]+", " ", "".join(c for c in decomposed if not unicodedata.combining(c))).split())


def _with_codes(header: str) -> str:
    return header.replace("€", " eur ").replace("£", " gbp ").replace("R$", " brl ")


def role_of(header: str) -> tuple[str, str | None] | None:
    """Return what a column means, and the currency that its name has ("Amount (EUR)"); None if it is not known."""
    plain = plain_name(_with_codes(header))
    roles = _roles()
    if plain in roles:
        return roles[plain], None
    parts = plain.split()
    codes = [word.upper() for word in parts if word in _CURRENCY_CODES]
    rest = " ".join(word for word in parts if word not in _CURRENCY_CODES and word not in _FILLERS)
    return (roles[rest], codes[0] if codes else None) if rest in roles else None


def is_english(header: str) -> bool:
    """Return whether English statements use a column name, alone or as well as others."""
    plain = plain_name(_with_codes(header))
    rest = " ".join(word for word in plain.split() if word not in _CURRENCY_CODES and word not in _FILLERS)
    names = {name for names in _ENGLISH.values() for name in names.split("|")}
    return bool({plain, rest} & (names | {name.replace(" ", "") for name in names}))


@cache
def _roles() -> Mapping[str, str]:
    """Return the meaning of each name; where languages differ, the first one of ``_LANGUAGES`` wins."""
    roles: dict[str, str] = {}
    for language in _LANGUAGES:
        for role, names in language.items():
            for name in names.split("|"):
                roles.setdefault(name, role)
                # Some tools write the words of a name together: transactionDate.
                roles.setdefault(name.replace(" ", ""), role)
    return roles
