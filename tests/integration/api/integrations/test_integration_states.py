"""What a process knows of the statuses of integrations: on a real MongoDB, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.auth.integration_states import IntegrationStates
from shared.domain.access.caller import Caller, Role
from shared.domain.access.integration import (
    Integration,
    IntegrationDetails,
    IntegrationState,
    IntegrationStatus,
    request_integration,
)
from shared.errors import IntegrationInactive, Unavailable
from shared.store.access.integration_store import MongoIntegrationStore
from shared.store.database import Database
from tests.builders import NOON

ACTIVE, SUSPENDED = IntegrationStatus.ACTIVE, IntegrationStatus.SUSPENDED


class Store(MongoIntegrationStore):
    """The register, which counts how often single integrations are read, and may be away."""

    reads = 0
    is_away = False

    def find_states(self, integration_ids: Sequence[str]) -> Sequence[IntegrationState]:
        self.reads += 1
        if self.is_away:
            raise Unavailable
        return super().find_states(integration_ids)


@dataclass
class Process:
    """A process that checks submits; ``now_s`` is its clock."""

    store: Store
    now_s: float = 100.0

    def __post_init__(self) -> None:
        self.states = IntegrationStates(self.store, is_required=False, clock_s=lambda: self.now_s)

    def may_submit(self, integration: Integration) -> bool:
        caller = Caller(Role.INTEGRATOR, integration.details.name, "key:x", integration=integration.id)
        try:
            self.states.check_may_start_runs(caller, is_submit=True)
        except IntegrationInactive:
            return False
        return True


@pytest.fixture
def database(mongodb_url: str) -> Iterator[Database]:
    with closing(Database(mongodb_url, "test", 5.0)) as opened:
        opened.ensure_indexes()
        yield opened


@pytest.fixture
def process(database: Database) -> Process:
    return Process(Store(database))


def added(store: Store, name: str, status: IntegrationStatus) -> Integration:
    details = IntegrationDetails(name, "invoices", "amounts in", "ops@example.com", b"100")
    integration = replace(request_integration(details, "ann", NOON), status=status)
    store.add(integration)
    return integration


def changed(store: Store, database: Database, integration: Integration, at: datetime) -> None:
    """Suspend an integration by another process, as if the server's clock had shown ``at``."""
    store.save(replace(integration, status=SUSPENDED))
    database.collection("integrations").update_one({"_id": integration.id}, {"$set": {"changed_at": at}})


def test_a_refusal_needs_the_status_of_this_moment_but_a_flood_of_them_is_not_one_of_reads(process: Process) -> None:
    integration = added(process.store, "acme", SUSPENDED)
    assert not any(process.may_submit(integration) for _ in range(20))
    assert process.store.reads == 1
    process.store.save(replace(integration, status=ACTIVE))
    process.now_s += 0.2
    assert process.may_submit(integration)
    assert all(process.may_submit(integration) for _ in range(20))
    assert process.store.reads == 2, "an active one costs no read"


def test_while_mongodb_is_away_the_last_known_status_counts(process: Process) -> None:
    active, suspended = added(process.store, "a", ACTIVE), added(process.store, "b", SUSPENDED)
    assert (process.may_submit(active), process.may_submit(suspended)) == (True, False)
    process.store.is_away = True
    process.now_s += 10
    assert (process.may_submit(active), process.may_submit(suspended)) == (True, False)
    with pytest.raises(Unavailable):
        process.may_submit(added(process.store, "c", ACTIVE))


def test_an_older_state_never_replaces_a_newer_one(process: Process) -> None:
    integration = added(process.store, "acme", SUSPENDED)
    assert not process.may_submit(integration)
    process.states.put(IntegrationState(integration.id, SUSPENDED, integration.version + 2))
    process.states.put(IntegrationState(integration.id, ACTIVE, integration.version + 1))
    assert not process.may_submit(integration)


def test_the_next_look_finds_what_another_process_has_changed(process: Process, database: Database) -> None:
    integration = added(process.store, "acme", ACTIVE)
    register = database.collection("integrations")
    register.update_one({"_id": integration.id}, {"$set": {"changed_at": NOON - timedelta(days=1)}})
    assert process.may_submit(integration)
    now = datetime.now(UTC)
    process.states.refresh(now)
    process.store.save(replace(integration, status=SUSPENDED))
    process.states.refresh(now)
    assert not process.may_submit(integration)


def test_a_change_that_was_stored_late_or_at_another_time_is_found(process: Process, database: Database) -> None:
    first, late, stepped = (added(process.store, name, ACTIVE) for name in ("first", "late", "stepped"))
    assert all(map(process.may_submit, (first, late, stepped)))
    [(*_, added_at), *_] = process.store.states_changed_since(NOON - timedelta(days=36_500))
    now = added_at + timedelta(hours=1)
    process.states.refresh(now)

    changed(process.store, database, first, now)
    process.states.refresh(now)
    changed(process.store, database, late, now - timedelta(seconds=5))  # its write took longer than the first one's
    process.states.refresh(now)
    changed(process.store, database, stepped, now - timedelta(minutes=10))  # the clock was set back
    process.states.refresh(now)
    assert [process.may_submit(each) for each in (first, late, stepped)] == [False, False, True]
    process.now_s += 61
    process.states.refresh(now)
    assert not process.may_submit(stepped)


@pytest.mark.parametrize(("known", "restored"), [(ACTIVE, SUSPENDED), (SUSPENDED, ACTIVE)])
def test_after_a_backup_was_restored_the_recheck_takes_over_the_older_status(
    process: Process, database: Database, known: IntegrationStatus, restored: IntegrationStatus
) -> None:
    integration = added(process.store, "acme", restored)
    backup = database.collection("integrations").find_one({"_id": integration.id}) or {}
    process.store.save(replace(integration, status=known))
    assert process.may_submit(integration) is (known is ACTIVE)
    long_ago = {"changed_at": NOON - timedelta(days=1)}
    database.collection("integrations").replace_one({"_id": integration.id}, backup | long_ago)
    process.now_s += 61
    process.states.refresh(datetime.now(UTC))
    assert process.may_submit(integration) is (restored is ACTIVE)


def test_the_recheck_passes_over_what_it_read_before_a_change_of_this_process(process: Process) -> None:
    integration = added(process.store, "acme", ACTIVE)
    assert process.may_submit(integration)
    find_states = process.store.find_states

    def find_and_suspend(integration_ids: Sequence[str]) -> Sequence[IntegrationState]:
        found = find_states(integration_ids)
        process.now_s += 1
        process.states.put(IntegrationState(integration.id, SUSPENDED, integration.version + 1))
        process.store.is_away = True
        return found

    process.now_s += 61
    process.store.find_states = find_and_suspend  # type: ignore[method-assign]
    process.states.refresh(NOON)
    process.store.find_states = find_states  # type: ignore[method-assign]
    assert not process.may_submit(integration)


@pytest.mark.parametrize("touch", [{}, {"$currentDate": {"changed_at": True}}])
@pytest.mark.parametrize("changes", [{"$unset": {"ticks": ""}}, {"$set": {"volume": b"zz"}}])
def test_one_that_cannot_be_read_is_not_active(
    process: Process, database: Database, changes: dict[str, Any], touch: dict[str, Any]
) -> None:
    broken, other = added(process.store, "a", ACTIVE), added(process.store, "b", ACTIVE)
    assert all(map(process.may_submit, (broken, other)))
    database.collection("integrations").update_one({"_id": broken.id}, changes | touch)
    process.now_s += 1 if touch else 61
    process.states.refresh(datetime.now(UTC))
    assert (process.may_submit(broken), process.may_submit(other)) == (False, True)
