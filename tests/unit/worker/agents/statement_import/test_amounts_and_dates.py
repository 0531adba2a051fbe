"""An amount keeps its value however it is written; what a date means is decided by all dates of the statement."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from worker.agents.statement_import.statement_amounts import MoneyReader, reader_of
from worker.agents.statement_import.statement_dates import date_reader_of
from worker.agents.statement_import.statement_record import UnreadableCell

Import = Callable[..., dict[str, Any]]
GROUPS = {".": (",", "'", "\u2019", " ", "\u00a0", "\u202f", ""), ",": (".", "'", " ", "\u00a0", "")}
NEGATIVE = (
    "-{}",
    "{}-",
    "({})",
    "\u2212{}",
    "- {}",
    "{} DR",
    "-{} €",
    "€-{}",
    "-€{}",
    "EUR -{}",
    "({} EUR)",
    "€({})",
    "{} Dr.",
    "{} S",
)
POSITIVE = ("{}", "+{}", "{}+", "{} CR", "€{}", "{} €", "EUR {}", "{} EUR", "{} H")
CENTS = st.integers(0, 99_999_999_999_999)


def written(cents: int, mark: str, group: str, form: str) -> str:
    whole = f"{cents // 100:,}".replace(",", group)
    return form.format(f"{whole}{mark}{cents % 100:02}")


@drawn(CENTS, st.sampled_from(".,"), st.data())
@settings(max_examples=150)
def test_no_way_of_writing_an_amount_changes_its_value(cents: int, mark: str, data: st.DataObject) -> None:
    group = data.draw(st.sampled_from(GROUPS[mark]))
    form = data.draw(st.sampled_from(NEGATIVE + POSITIVE))
    text = written(cents, mark, group, form)
    value = reader_of([text]).read(text, "EUR")
    assert value == Decimal(cents).scaleb(-2) * (-1 if form in NEGATIVE else 1)


@drawn(st.lists(CENTS, min_size=1, max_size=8), st.sampled_from(".,"), st.sampled_from(["-{}", "{}-", "({})", "{}"]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_csv_gives_back_the_amounts_that_were_written(
    import_text: Import, amounts: list[int], mark: str, form: str
) -> None:
    rows = [f"2026-01-01;x;{written(cents, mark, GROUPS[mark][0], form)}" for cents in amounts]
    output = import_text("\n".join(["Date;Description;Amount", *rows]))
    sign = 1 if form == "{}" else -1
    found = [Decimal(repr(each["amount"])) for each in output["transactions"]]
    assert found == [Decimal(cents).scaleb(-2) * sign for cents in amounts]


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1.234", "5,60"], ["1234", "5.60"]),
        (["1,234", "5.60"], ["1234", "5.60"]),
        (["1.234", "5.60"], ["1.234", "5.60"]),
        (["1.234"], ["1234"]),
        (["1,23,456.00"], ["123456"]),
        (["0.125"], ["0.125"]),
        ([".5", "5."], ["0.5", "5"]),
        (["000000000045,60"], ["45.60"]),
    ],
)
def test_an_amount_with_one_mark_is_read_as_the_other_amounts_say(texts: list[str], values: list[str]) -> None:
    reader = reader_of(texts)
    assert [reader.read(text) for text in texts] == [Decimal(value) for value in values]


def test_an_amount_of_three_places_is_read_by_its_currency() -> None:
    assert [MoneyReader().read("1.234", currency) for currency in ("KWD", "EUR", "JPY")] == [
        Decimal("1.234"),
        1234,
        1234,
    ]


@pytest.mark.parametrize(
    "text", ["1.23,456", "12 34", "1e5", "--5", "(-5)", "5 - 3", "EUR", "1,2,3", "NaN", "Infinity", "٣", "0x1", "1_000"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UnreadableCell):
        MoneyReader().read(text)


def test_an_amount_that_can_be_two_is_refused_if_the_others_use_both_marks() -> None:
    reader = reader_of(["1,50", "1.50", "1.234"])
    assert reader.read("1,50") == reader.read("1.50") == Decimal("1.5")
    with pytest.raises(UnreadableCell, match="decimal dot and with a decimal comma"):
        reader.read("1.234")


def test_more_places_than_the_currency_has_are_refused() -> None:
    with pytest.raises(UnreadableCell, match="more decimal places than JPY has"):
        MoneyReader(mark=".").read("10.5", "JPY")


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05", "2026-01-05T23:59:59+14:00", "2026-01-05 08:00", "2026/01/05", "20260105",
        "20260105120000[-5:EST]",
        "05.01.2026", "5.1.26", "5 Jan 2026", "05-Jan-26", "Jan 5, 2026", "January 5, 2026", "5. Januar 2026",
        "5 janvier 2026", "5 januari 2026", "5 ene 2026", "1767600000", "1767600000000",
    ],
)  # fmt: skip
def test_a_date_that_means_one_day_is_read_in_any_form(text: str) -> None:
    assert date_reader_of([[text]]).read(text) == date(2026, 1, 5)


@pytest.mark.parametrize(
    ("texts", "how", "first", "note"),
    [
        (["3/4/2026", "13/4/2026"], {}, "2026-04-03", ""),
        (["3/4/2026", "3/14/2026"], {}, "2026-03-04", ""),
        (["3/4/2026", "5/4/2026"], {"is_day_first": True}, "2026-04-03", "language"),
        (["3/4/2026", "4/1/2026", "5/2/2026"], {}, "2026-03-04", "in order"),
        (["1/3/2026", "1/9/2026", "1/12/2026"], {}, "2026-01-03", "closer together"),
        (["3/4/2026"], {"is_in_dollars": True}, "2026-03-04", "dollars"),
        (["3/4/2026"], {}, "2026-04-03", "nothing says otherwise"),
        (["3/4/2026", "13/4/2026"], {"date_order": "mdy"}, "2026-03-04", "date_order"),
    ],
)
def test_the_order_of_day_and_month_is_decided_by_the_first_rule_that_can(
    texts: list[str], how: dict[str, Any], first: str, note: str
) -> None:
    reader = date_reader_of([texts], **how)
    assert reader.read(texts[0]).isoformat() == first
    assert note in reader.note
    assert bool(reader.note) == bool(note)


def test_dates_that_prove_both_orders_are_read_only_if_they_can_be_one_day() -> None:
    reader = date_reader_of([["13/4/2026", "4/13/2026", "3/4/2026"]])
    assert reader.read("13/4/2026") == reader.read("4/13/2026") == date(2026, 4, 13)
    with pytest.raises(UnreadableCell, match="say date_order"):
        reader.read("3/4/2026")
