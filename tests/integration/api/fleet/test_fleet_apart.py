"""What operators see of the fleet is theirs: counts and running steps of another integrator are in no reply."""

from __future__ import annotations

import time

from shared.domain.access.caller import Role
from shared.live.presence.presence_entry import RunningSlot, WorkerInfo
from shared.live.presence.worker_presence import WorkerPresence
from tests.callers import ACME, ZENITH, Callers
from tests.waiting import wait_until


def test_only_an_operator_and_an_admin_see_workers(callers: Callers) -> None:
    for role in Role:
        status = callers.new(role, ACME if role is not Role.ADMIN else "public").get("/workers").status_code
        assert status == (200 if role in {Role.OPERATOR, Role.ADMIN} else 403), role


def test_an_operator_sees_what_runs_of_its_own_integrator_and_that_other_slots_are_busy(callers: Callers) -> None:
    slots = tuple(
        RunningSlot(integrator, f"1700000000_{at:016x}", "s1", "teller", 1_700_000_000_000)
        for at, integrator in enumerate((ACME, ZENITH))
    )
    info = WorkerInfo("here", 1, "9.9", ("default",), 4, 1_700_000_000_000, slots)
    presence = WorkerPresence(callers.services.redis, "here:1", describe=lambda: info)
    presence.start()
    wait_until(lambda: callers.admin.get("/workers").json["workers"], what="the worker is there")
    [own] = callers.new(Role.OPERATOR, ACME).get("/workers").json["workers"]
    assert [row["execution_id"] for row in own["running"]] == [slots[0].execution_id]
    assert (own["slots"], own["slots_busy"]) == (4, 2)
    [every] = callers.admin.get("/workers").json["workers"]
    assert len(every["running"]) == 2
    [narrowed] = callers.admin.get(f"/workers?integrator={ZENITH}").json["workers"]
    assert [row["execution_id"] for row in narrowed["running"]] == [slots[1].execution_id]
    presence.stop()


def test_the_figures_are_those_of_the_callers_own_runs(callers: Callers) -> None:
    callers.failed(callers.zenith)
    callers.zenith.submit()
    callers.acme.submit()
    time.sleep(1.1)  # a count is kept for a second
    acme = callers.acme.get("/executions/stats").json
    assert (acme["by_status"]["queued"], acme["by_status"]["failed"]) == (1, 0)
    assert acme["queues"]["default"]["queued"] == 1
    assert acme["windows"]["5m"]["submitted"] == 1
    zenith = callers.zenith.get("/executions/stats").json
    assert (zenith["by_status"]["failed"], zenith["windows"]["24h"]["failures"]) == (1, {"boom": 1})
    every = callers.admin.get("/executions/stats").json
    assert (every["queues"]["default"]["queued"], every["windows"]["1h"]["submitted"]) == (2, 3)
    assert callers.admin.get(f"/executions/stats?integrator={ACME}").json["by_status"] == acme["by_status"]
    assert callers.acme.get(f"/executions/stats?integrator={ZENITH}").status_code == 403
