"""Statements in the layouts of real banks and tools, made up, give their totals to the cent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Import = Callable[..., dict[str, Any]]
STATEMENTS = Path(__file__).parent / "statements"


@pytest.mark.parametrize(
    ("name", "amounts", "total", "unread_lines"),
    [
        ("german_giro.csv", ["2500", "-1061.2", "-4.35"], "1434.45", [10]),
        ("british_current.csv", ["-12.4", "2050", "-1143", "-50"], "844.6", []),
        ("american_card.csv", ["-84.17", "-23", "150.25", "9.99"], "53.07", []),
        ("american_card_positive.csv", ["-41.05", "-18.2", "59.25"], "0.00", []),
        ("dutch_sign_column.csv", ["1850", "-37.45", "-950"], "862.55", []),
        ("french_columns.csv", ["-1061.2", "2500", "-4.35"], "1434.45", []),
        ("spanish_tabs.csv", ["-61.2", "1500"], "1438.8", []),
        ("neobank_fees.csv", ["500", "-204", "-11.35"], "284.65", [5, 6]),
        ("wallet_net.csv", ["96.8", "-25"], "71.8", [4, 5]),
        ("bank_sgml.ofx", ["-1045.6", "2000", "-0.01"], "954.39", [20]),
        ("card_xml.ofx", ["-19.99", "-7.5", "127.49"], "100.00", []),
        ("german.sta", ["-45.6", "-10", "1234.5", "-1", "5"], "1182.9", [19]),
        ("camt053_02.xml", ["2500", "-50.25", "-12.5"], "2437.25", [23]),
        ("camt053_08.xml", ["2500", "-50.25", "-12.5"], "2437.25", [23]),
        ("open_banking.json", ["-84.35", "1500"], "1415.65", [3, 4]),
        ("minor_units.json", ["-12.4", "1240", "1.24"], "1228.84", [4]),
    ],
)
def test_a_statement_gives_its_amounts_to_the_cent_and_tells_what_it_left(
    name: str, amounts: list[str], total: str, unread_lines: list[int], import_file: Import
) -> None:
    output = import_file(name)
    ending = name.partition(".")[2]
    assert output["format"] == {"sta": "mt940", "xml": "camt053"}.get(ending, ending)
    assert (output["amounts"], output["total"]) == (amounts, total)
    assert [each["line"] for each in output["unread"]] == unread_lines
    assert (output["count"], output["unread_count"], output["not_listed"]) == (len(amounts), len(unread_lines), 0)


SHORT = {
    "a credit column with minus signs": (
        "Status,Date,Description,Debit,Credit\nCleared,01/13/2026,SHOP,10.25,\nCleared,01/14/2026,PAYMENT,,-100.00\n",
        [("2026-01-13", -10.25), ("2026-01-14", 100)],
    ),
    "lakhs and names of months": (
        'Txn Date,Description,Debit,Credit\n5 Jan 2026,A,," 1,00,000.00 "\n6 Jan 2026,B,"10,000.50",\n',
        [("2026-01-05", 100_000), ("2026-01-06", -10_000.5)],
    ),
    "marks, and a table below another": (
        "Summary,,Amt.\nTotal,,5\n\nDate;Details;Amount;DR/CR\n05.01.2026;A;12.50;DR\n06.01.2026;B;9.00;CR\n",
        [("2026-01-05", -12.5), ("2026-01-06", 9)],
    ),
    "headers in one word, after a line that names the delimiter": (
        "sep=|\naccountNumber|mutationcode|transactiondate|amount|description\n1|EUR|20260105|-12,50|A\n",
        [("2026-01-05", -12.5)],
    ),
    "a type that says debit in some lines": (
        "Date,Description,Amount,Type\n2026-01-05,SHOP,5.00,debit\n2026-01-06,BOSS,9.00,salary\n",
        [("2026-01-05", -5), ("2026-01-06", 9)],
    ),
    "a sale is income of a merchant": (
        (
            '[{"date": "2026-01-05", "amount": "9.00", "type": "charge"}, '
            '{"date": "2026-01-06", "amount": "-3.00", "type": "refund"}]'
        ),
        [("2026-01-05", 9), ("2026-01-06", -3)],
    ),
    "a card statement whose purchases say so": (
        "Date,Description,Type,Amount (USD)\n01/14/2026,SHOP,Purchase,10.25\n01/15/2026,A,Payment,-9.00\n",
        [("2026-01-14", -10.25), ("2026-01-15", 9)],
    ),
    "a card statement with a card member": (
        (
            "Date,Description,Card Member,Amount\n01/14/2026,SHOP,A B,10.25\n01/14/2026,BAR,A B,2.00\n"
            "01/15/2026,PAYMENT,A B,-100.00\n"
        ),
        [("2026-01-14", -10.25), ("2026-01-14", -2), ("2026-01-15", 100)],
    ),
    "pounds have the day first": (
        "Date,Description,Money out,Money in\n03/01/2026,SHOP,£4.50,\n03/02/2026,BOSS,,£100.00\n",
        [("2026-01-03", -4.5), ("2026-02-03", 100)],
    ),
    "Valuta is a currency": (
        "Datum;Omschrijving;Bedrag;Valuta\n05-01-2026;A;1.500;JPY\n",
        [("2026-01-05", 1500)],
    ),
    "JSON with net amounts in cents": (
        (
            '{"data": [{"id": "t", "object": "balance_transaction", "amount": -1200, "created": 1767600000, '
            '"currency": "eur", "fee": 34, "net": -1234}]}'
        ),
        [("2026-01-05", -12.34)],
    ),
    "JSON whose money out is positive": (
        (
            '{"accounts": [{"account_id": "x"}], "transactions": [{"amount": 12.34, "iso_currency_code": "USD", '
            '"date": "2026-01-05", "name": "A", "payment_channel": "online", "transaction_id": "p"}]}'
        ),
        [("2026-01-05", -12.34)],
    ),
    "JSON with texts": (
        '[{"Datum": "05.01.2026", "Betrag": "-1.234,56 €", "Verwendungszweck": "A"}]',
        [("2026-01-05", -1234.56)],
    ),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_short_statement_gives_its_dates_and_amounts(name: str, import_text: Import) -> None:
    text, expected = SHORT[name]
    output = import_text(text)
    assert [(each["date"], each["amount"]) for each in output["transactions"]] == expected
    assert output["unread"] == []


def test_a_german_csv_has_its_account_its_currency_and_a_field_over_two_lines(import_file: Import) -> None:
    output = import_file("german_giro.csv")
    second = output["transactions"][1]
    assert second.pop("id")
    assert second == {
        "date": "2026-01-15",
        "amount": -1061.2,
        "balance": -35.15,
        "currency": "EUR",
        "account": "DE02120300000000202051",
        "description": 'Stadtwerke / Lastschrift / Abschlag; Strom "Öko" und Gas',
        "type": "expense",
    }
    assert output["unread"][0]["reason"] == "no date: 'Summe 1.434,45'"


def test_an_ofx_date_is_the_banks_day_whatever_its_zone(import_file: Import) -> None:
    assert import_file("bank_sgml.ofx")["transactions"][0]["date"] == "2026-01-05"


def test_the_account_of_an_ofx_transaction_is_not_that_of_the_other_side(import_file: Import) -> None:
    assert {each["account"] for each in import_file("bank_sgml.ofx")["transactions"]} == {"000123"}


def test_a_currency_of_an_ofx_transaction_counts_before_that_of_the_statement(import_file: Import) -> None:
    assert [each["currency"] for each in import_file("card_xml.ofx")["transactions"]] == ["CAD", "USD", "CAD"]


def test_mt940_details_are_read_by_their_parts_and_reversals_by_their_mark(import_file: Import) -> None:
    first, reversal, _, new_year, _ = import_file("german.sta")["transactions"]
    assert first["description"] == "Muster Strom GmbH / Rechnung 4711 vom Januar"
    assert (reversal["amount"], reversal["type"]) == (-10, "expense")
    # Valued on 31 December 2025, booked on 2 January.
    assert new_year["date"] == "2026-01-02"


def test_an_mt940_amount_with_a_dot_is_not_read_as_another_amount(import_file: Import) -> None:
    assert "is not built as :61: must be" in import_file("german.sta")["unread"][0]["reason"]


@pytest.mark.parametrize("version", ["02", "08"])
def test_a_camt_batch_is_told_in_parts_and_a_pending_entry_is_not_booked(version: str, import_file: Import) -> None:
    output = import_file(f"camt053_{version}.xml")
    told = [(each["id"], each["date"], each["description"]) for each in output["transactions"]]
    assert told == [
        ("R1", "2026-01-05", "Employer Ltd / Gehälter January"),
        ("R2/1", "2026-01-10", "Part A"),
        ("R2/2", "2026-01-10", "Part B"),
    ]
    assert output["unread"][0]["reason"] == "entry 3: not booked: its status is 'PDNG'"
    assert output["notes"] == []


def test_a_camt_batch_whose_parts_do_not_add_up_stays_whole(import_text: Import) -> None:
    text = (STATEMENTS / "camt053_08.xml").read_text().replace(">50.25<", ">50.24<")
    assert [each["amount"] for each in import_text(text)["transactions"]] == [2500, -62.75]


def test_an_ofx_that_is_cut_off_does_not_give_half_an_amount(import_text: Import) -> None:
    text = (STATEMENTS / "bank_sgml.ofx").read_text().partition("45.60")[0]
    output = import_text(text)
    assert output["transactions"] == []
    assert "not closed" in output["unread"][0]["reason"]


@pytest.mark.parametrize("mark", ["\ufeff", "\u00ef\u00bb\u00bf"])
@pytest.mark.parametrize(
    "name", ["british_current.csv", "bank_sgml.ofx", "german.sta", "camt053_02.xml", "open_banking.json"]
)
def test_a_byte_order_mark_changes_nothing(name: str, mark: str, import_text: Import) -> None:
    text = (STATEMENTS / name).read_text()
    assert import_text(mark + text) == import_text(text)


def test_balances_that_do_not_meet_the_sum_are_told(import_text: Import) -> None:
    text = ":20:A\n:25:1\n:60F:C260101EUR10,00\n:61:260102C5,00NTRFX\n:62F:C260102EUR16,00\n"
    assert "does not add up" in import_text(text)["notes"][0]


def test_minor_units_are_those_of_the_currency(import_file: Import) -> None:
    amounts = {each["currency"]: each["amount"] for each in import_file("minor_units.json")["transactions"]}
    assert amounts == {"GBP": -12.4, "JPY": 1240, "KWD": 1.24}


def test_a_fee_is_taken_off_only_if_the_balances_prove_it(import_text: Import) -> None:
    header = "Date,Description,Amount,Fee,Balance\n2026-01-01,Top-up,100.00,0.00,100.00\n"
    proven = import_text(header + "2026-01-02,Cash,-50.00,2.00,48.00\n")
    contained = import_text(header + "2026-01-02,Cash,-50.00,2.00,50.00\n")
    assert [output["transactions"][1]["amount"] for output in (proven, contained)] == [-52, -50]
    assert "not taken off" in contained["notes"][-1]


def test_the_same_id_with_another_amount_is_no_duplicate(import_text: Import) -> None:
    text = "Date,Description,Amount,Transaction ID\n2026-01-01,a,1.00,X\n2026-01-01,a,1.00,X\n2026-01-01,b,2.00,X\n"
    output = import_text(text)
    assert [(each["id"], each["amount"]) for each in output["transactions"]] == [("X", 1), ("X-2", 2)]
    assert output["unread"] == [{"line": 3, "reason": "a duplicate of line 2: the same id, 'X'"}]


def test_ids_that_are_made_up_are_the_same_at_each_reading_and_differ_within_one(import_text: Import) -> None:
    text = "Date,Description,Amount\n2026-01-01,coffee,-2.00\n2026-01-01,coffee,-2.00\n"
    first, second = (import_text(text)["transactions"] for _ in range(2))
    assert first == second
    assert len({each["id"] for each in first}) == 2


def test_a_quote_that_is_never_closed_costs_its_own_line(import_text: Import) -> None:
    text = 'Date,Description,Amount\n2026-01-01,"open,-1.00\n2026-01-02,7" pipe,-2.00\n2026-01-03,c,-3.00\n'
    output = import_text(text)
    assert [each["amount"] for each in output["transactions"]] == [-2, -3]
    assert output["unread"] == [{"line": 2, "reason": "a quote is opened and not closed"}]


def test_what_is_not_listed_is_counted_and_noted(import_text: Import) -> None:
    text = "Date,Description,Amount\n" + "2026-01-01,x,-1.00\n" * 10_050
    output = import_text(text)
    assert (len(output["transactions"]), output["count"], output["not_listed"]) == (10_000, 10_050, 50)
    assert output["notes"][0].startswith("50 transactions are not listed")


@pytest.mark.parametrize(
    ("csv_row", "reason"),
    [
        ("2026-01-01;a;1;2", "the line has a debit and a credit"),
        ("2026-01-01;a;;", "no amount"),
        ("2026-02-30;a;1;", "is not a date"),
        ("2026-01-01;a;1;;5", "the header has 4"),
        ("2026-01-01;Closing balance;1;", "a line of balances or totals"),
        ("2026-01-01;a;EUR 1 USD;", "more than one sign or currency"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_with_its_line_and_reason(
    csv_row: str, reason: str, import_text: Import
) -> None:
    output = import_text(f"Date;Description;Debit;Credit\n2026-01-01;good;1.00;\n{csv_row}\n")
    assert [each["amount"] for each in output["transactions"]] == [-1]
    assert output["unread"][0]["line"] == 3
    assert reason in output["unread"][0]["reason"]


def test_the_caller_can_turn_the_signs_of_a_card_statement(import_text: Import) -> None:
    text = "Date,Description,Amount\n2026-01-01,shop,5.00\n"
    assert [import_text(text, sign=sign)["transactions"][0]["amount"] for sign in ("auto", "inverted")] == [5, -5]
