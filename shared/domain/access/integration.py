"""The life of an integration: who asked for it, the legal moves from request to activation, what is ticked off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from shared.errors import IllegalMove, IntegrationIncomplete
from shared.ids import new_token

INTEGRATION_ID_PATTERN: Final = re.compile(r"itg_[0-9a-f]{16}", re.ASCII)
HISTORY_MAX: Final = 100
"""Moves that are kept, the newest; an older one is in the audit log alone."""


class IntegrationStatus(StrEnum):
    """The status of an integration; only the keys of an active one may submit."""

    REQUESTED = "requested"
    IN_REVIEW = "in_review"
    CHANGES_REQUESTED = "changes_requested"
    APPROVED = "approved"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class IntegrationAction(StrEnum):
    """What an admin does to an integration."""

    REQUEST = "request"
    CORRECT = "correct"
    REVIEW = "review"
    APPROVE = "approve"
    REQUEST_CHANGES = "request_changes"
    ACTIVATE = "activate"
    SUSPEND = "suspend"


_S = IntegrationStatus
MOVES: Final[Mapping[IntegrationAction, tuple[frozenset[IntegrationStatus], IntegrationStatus]]] = MappingProxyType(
    {
        IntegrationAction.CORRECT: (frozenset({_S.REQUESTED, _S.CHANGES_REQUESTED}), _S.REQUESTED),
        IntegrationAction.REVIEW: (frozenset({_S.REQUESTED, _S.CHANGES_REQUESTED}), _S.IN_REVIEW),
        IntegrationAction.APPROVE: (frozenset({_S.IN_REVIEW}), _S.APPROVED),
        IntegrationAction.REQUEST_CHANGES: (frozenset({_S.IN_REVIEW}), _S.CHANGES_REQUESTED),
        IntegrationAction.ACTIVATE: (frozenset({_S.APPROVED, _S.SUSPENDED}), _S.ACTIVE),
        IntegrationAction.SUSPEND: (frozenset({_S.ACTIVE}), _S.SUSPENDED),
    }
)
"""The legal moves: of each action, the statuses that it may begin in, and the one that it leads to."""


@dataclass(frozen=True, slots=True)
class IntegrationDetails:
    """What a request says; ``name`` is the integrator of its keys, ``volume`` is JSON: a text, a number or an object.

    With ``baskets`` the key of the integration may run only these.
    """

    name: str
    use_case: str
    data_flow: str
    contact: str
    volume: bytes
    agents: tuple[str, ...] = ()
    baskets: tuple[str, ...] = ()
    mapping_url: str | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Whether an item of a checklist is done, and who said so when."""

    done: bool
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """One move of an integration; ``before`` is None for the request itself."""

    action: IntegrationAction
    before: IntegrationStatus | None
    after: IntegrationStatus
    by: str
    at: datetime
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class IntegrationState:
    """What decides whether the keys of an integration may submit, at one version of it."""

    id: str
    status: IntegrationStatus
    version: int


@dataclass(frozen=True, slots=True)
class Integration:
    """A registered integration. ``key_id`` is the key that its activation issued.

    ``pending_key_id`` is the key of an activation under way: one that died leaves it, and the next one revokes it.
    """

    id: str
    details: IntegrationDetails
    status: IntegrationStatus
    updated_at: datetime
    history: tuple[Move, ...]
    ticks: Mapping[str, Tick] = field(default_factory=dict)
    key_id: str | None = None
    pending_key_id: str | None = None
    version: int = 1

    @property
    def state(self) -> IntegrationState:
        """Its status at this version."""
        return IntegrationState(self.id, self.status, self.version)

    @property
    def open_items(self) -> tuple[str, ...]:
        """The ids of the items that are not done yet."""
        return tuple(name for name in CHECKLIST_ITEMS if name not in self.ticks or not self.ticks[name].done)

    @property
    def percentage(self) -> int:
        """The share of the items that are done, in whole percent; 100 only if all are."""
        return 100 * (len(CHECKLIST_ITEMS) - len(self.open_items)) // len(CHECKLIST_ITEMS)


def request_integration(details: IntegrationDetails, by: str, now: datetime) -> Integration:
    """Return a new integration that waits for its review."""
    move = Move(IntegrationAction.REQUEST, None, IntegrationStatus.REQUESTED, by, now)
    return Integration(f"itg_{new_token()}", details, IntegrationStatus.REQUESTED, now, (move,))


def move_integration(
    integration: Integration, action: IntegrationAction, by: str, now: datetime, comment: str | None = None
) -> Integration:
    """Return ``integration`` after ``action``.

    Raises IllegalMove if the action is not legal now, and IntegrationIncomplete for an activation while items of
    the checklists are open.
    """
    begins, after = MOVES[action]
    if integration.status not in begins:
        raise IllegalMove(_explain(integration, action))
    if action is IntegrationAction.ACTIVATE and integration.open_items:
        raise IntegrationIncomplete(
            f"{integration.details.name!r} is at {integration.percentage} % of its checklists; open are: "
            + ", ".join(integration.open_items)
        )
    move = Move(action, integration.status, after, by, now, comment)
    return replace(integration, status=after, updated_at=now, history=(*integration.history, move)[-HISTORY_MAX:])


def correct_integration(integration: Integration, details: IntegrationDetails, by: str, now: datetime) -> Integration:
    """Return ``integration`` with other details, waiting for its review again; raises IllegalMove."""
    return replace(move_integration(integration, IntegrationAction.CORRECT, by, now), details=details)


def tick_items(integration: Integration, done_by_item: Mapping[str, bool], by: str, now: datetime) -> Integration:
    """Return ``integration`` with these items done or open; one that is so already keeps who said so when."""
    changed = {
        name: Tick(done, by, now)
        for name, done in done_by_item.items()
        if done != (name in integration.ticks and integration.ticks[name].done)
    }
    return replace(integration, ticks={**integration.ticks, **changed}, updated_at=now) if changed else integration


def _explain(integration: Integration, action: IntegrationAction) -> str:
    """Return why ``action`` is not legal now, and which actions come first."""
    name, status = integration.details.name, integration.status
    if status is MOVES[action][1]:
        return f"{name!r} is {status} already"
    first = _actions_between(status, MOVES[action][0])
    legal = ", ".join(other for other, (begins, _) in MOVES.items() if status in begins)
    if first:
        return f"{name!r} is {status}: {action} comes after {' and '.join(first)}"
    return f"{name!r} is {status}, from where no way leads to {action}; possible is: {legal}"


def _actions_between(status: IntegrationStatus, targets: frozenset[IntegrationStatus]) -> tuple[IntegrationAction, ...]:
    """Return the shortest sequence of actions from ``status`` to one of ``targets``; empty if there is none."""
    ways: dict[IntegrationStatus, tuple[IntegrationAction, ...]] = {status: ()}
    pending = [status]
    for current in pending:  # grows while it is read: a breadth-first search
        if current in targets:
            return ways[current]
        for action, (begins, after) in MOVES.items():
            if current in begins and after not in ways:
                ways[after] = (*ways[current], action)
                pending.append(after)
    return ()
