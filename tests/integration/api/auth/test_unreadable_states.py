"""The cached statuses of integrations on a real MongoDB: none that is lost or unreadable counts as active."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from api.auth import integration_states
from api.auth.integration_states import IntegrationStates
from shared.domain.access.caller import Caller, Role
from shared.domain.access.integration import Integration, IntegrationDetails, IntegrationStatus, request_integration
from shared.errors import IntegrationInactive
from shared.store.access.integration_store import MongoIntegrationStore
from shared.store.database import Database


@pytest.fixture
def database(mongodb_url: str) -> Iterator[Database]:
    with closing(Database(mongodb_url, "api", 2.0)) as database:
        yield database


def add_active(database: Database, name: str) -> Integration:
    details = IntegrationDetails(name, "use", "flow", "team", b"1")
    active = replace(request_integration(details, "test", datetime.now(UTC)), status=IntegrationStatus.ACTIVE)
    MongoIntegrationStore(database).add(active)
    return active


def check(states: IntegrationStates, integration: Integration) -> None:
    caller = Caller("key:a", Role.INTEGRATOR, integration.details.name, integration=integration.id)
    states.check_may_start_runs(caller, is_submit=True)


def change(database: Database, integration: Integration, status: str) -> None:
    changes = {"$set": {"status": status}, "$inc": {"version": 1}, "$currentDate": {"changed_at": True}}
    database.collection("integrations").update_one({"_id": integration.id}, changes)


def test_a_status_of_another_version_hides_no_suspension_and_is_not_active(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = IntegrationStates(MongoIntegrationStore(database), is_required=False)
    suspended, unreadable = add_active(database, "first"), add_active(database, "second")
    for integration in (suspended, unreadable):
        check(states, integration)
    change(database, unreadable, "of another version")
    change(database, suspended, "suspended")
    states.refresh(datetime.now(UTC))
    with pytest.raises(IntegrationInactive):
        check(states, suspended)
    monkeypatch.setattr(integration_states, "_RECHECK_AFTER_S", -1.0)
    states.refresh(datetime.now(UTC))
    with pytest.raises(IntegrationInactive):
        check(states, unreadable)
