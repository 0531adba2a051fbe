"""The table of moves of an integration, its checklists and its percentage."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.domain.access.integration import (
    HISTORY_MAX,
    Integration,
    IntegrationAction,
    IntegrationDetails,
    IntegrationStatus,
    correct_integration,
    move_integration,
    request_integration,
    tick_items,
)
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from shared.errors import IllegalMove, IntegrationIncomplete
from tests.builders import NOON

S, A = IntegrationStatus, IntegrationAction
DETAILS = IntegrationDetails("acme", "invoices", "amounts in, totals out", "ops@example.com", b"100")
WAYS = {
    S.REQUESTED: (),
    S.IN_REVIEW: (A.REVIEW,),
    S.CHANGES_REQUESTED: (A.REVIEW, A.REQUEST_CHANGES),
    S.APPROVED: (A.REVIEW, A.APPROVE),
    S.ACTIVE: (A.REVIEW, A.APPROVE, A.ACTIVATE),
    S.SUSPENDED: (A.REVIEW, A.APPROVE, A.ACTIVATE, A.SUSPEND),
}
ALL_MOVES = [(status, action) for status in S for action in A if action is not A.REQUEST]
LEGAL = {
    (S.REQUESTED, A.CORRECT): S.REQUESTED,
    (S.REQUESTED, A.REVIEW): S.IN_REVIEW,
    (S.IN_REVIEW, A.APPROVE): S.APPROVED,
    (S.IN_REVIEW, A.REQUEST_CHANGES): S.CHANGES_REQUESTED,
    (S.CHANGES_REQUESTED, A.CORRECT): S.REQUESTED,
    (S.CHANGES_REQUESTED, A.REVIEW): S.IN_REVIEW,
    (S.APPROVED, A.ACTIVATE): S.ACTIVE,
    (S.ACTIVE, A.SUSPEND): S.SUSPENDED,
    (S.SUSPENDED, A.ACTIVATE): S.ACTIVE,
}


def integration_in(status: IntegrationStatus) -> Integration:
    """Return an integration that came to ``status`` by legal moves, with all its items done."""
    integration = tick_items(
        request_integration(DETAILS, "ann", NOON), dict.fromkeys(CHECKLIST_ITEMS, True), "ann", NOON
    )
    for action in WAYS[status]:
        integration = move_integration(integration, action, "ann", NOON)
    assert integration.status is status
    return integration


@pytest.mark.parametrize(("status", "action"), ALL_MOVES)
def test_each_move_is_legal_as_the_table_says_and_no_other(status: S, action: A) -> None:
    integration = integration_in(status)
    if (status, action) in LEGAL:
        moved = move_integration(integration, action, "bob", NOON, "because")
        assert moved.status is LEGAL[status, action]
        last = moved.history[-1]
        assert (last.before, last.after, last.by, last.comment) == (status, moved.status, "bob", "because")
    else:
        with pytest.raises(IllegalMove, match=f"'acme' is {status}"):
            move_integration(integration, action, "bob", NOON)


@pytest.mark.parametrize(
    ("status", "action", "sentence"),
    [
        (S.REQUESTED, A.APPROVE, "'acme' is requested: approve comes after review"),
        (S.REQUESTED, A.ACTIVATE, "'acme' is requested: activate comes after review and approve"),
        (S.ACTIVE, A.ACTIVATE, "'acme' is active already"),
        (S.ACTIVE, A.REVIEW, "'acme' is active, from where no way leads to review; possible is: suspend"),
    ],
)
def test_a_refusal_says_what_comes_first(status: S, action: A, sentence: str) -> None:
    with pytest.raises(IllegalMove) as refusal:
        move_integration(integration_in(status), action, "bob", NOON)
    assert refusal.value.message == sentence


def test_one_hundred_percent_is_reached_by_the_last_item_alone_and_an_activation_names_what_is_open() -> None:
    integration = request_integration(DETAILS, "ann", NOON)
    percentages = [integration.percentage]
    for name in CHECKLIST_ITEMS:
        integration = tick_items(integration, {name: True}, "ann", NOON)
        percentages.append(integration.percentage)
    assert percentages == sorted(percentages)
    assert (percentages[0], percentages.count(100), percentages[-1]) == (0, 1, 100)

    opened = tick_items(integration_in(S.APPROVED), {"poll_after_obeyed": False}, "ann", NOON)
    with pytest.raises(IntegrationIncomplete, match=r"open are: poll_after_obeyed$"):
        move_integration(opened, A.ACTIVATE, "ann", NOON)


def test_an_item_that_is_ticked_again_keeps_who_ticked_it_first() -> None:
    later = NOON + timedelta(hours=1)
    integration = tick_items(request_integration(DETAILS, "ann", NOON), {"data_minimised": True}, "ann", NOON)
    assert tick_items(integration, {"data_minimised": True}, "bob", later) == integration
    opened = tick_items(integration, {"data_minimised": False}, "bob", later).ticks["data_minimised"]
    assert (opened.done, opened.by, opened.at) == (False, "bob", later)


def test_the_history_keeps_the_newest_moves() -> None:
    integration = integration_in(S.REQUESTED)
    for number in range(HISTORY_MAX + 5):
        integration = correct_integration(integration, DETAILS, f"admin-{number}", NOON)
    assert len(integration.history) == HISTORY_MAX
    assert integration.history[-1].by == f"admin-{HISTORY_MAX + 4}"
