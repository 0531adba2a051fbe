"""The rotation of encryption keys on a real MongoDB: nothing is lost, also in the middle of traffic or after a kill."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from compose.cli.rotate_data import rotate_data
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, LogEvent
from shared.domain.lifecycle.decision import StepOutput
from shared.domain.lifecycle.transitions import complete
from shared.sealing import KeyRing, Sealer, input_place, key_id_of
from shared.store.database import Database
from shared.store.executions.checkpoint_store import MongoCheckpointStore
from shared.store.executions.payload_seal import PayloadSeal
from shared.store.executions.store import MongoExecutionStore
from shared.store.executions.updates import ProgressReport
from shared.store.key_rotation import MongoKeyRotation
from tests.builders import NOON, TIMINGS, ManualClock, accept_decision, claim_decision

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
OLD_FIRST = Sealer(KeyRing({"old": OLD, "new": NEW}), seals_payloads=True)
NEW_FIRST = Sealer(KeyRing({"new": NEW, "old": OLD}), seals_payloads=True)
NEW_ALONE = Sealer(KeyRing({"new": NEW}), seals_payloads=True)


@pytest.fixture
def database(mongodb_url: str) -> Iterator[Database]:
    with closing(Database(mongodb_url, "operator", 5.0, retries=True)) as database:
        yield database


def store_with(database: Database, sealer: Sealer) -> MongoExecutionStore:
    return MongoExecutionStore(database, ManualClock(), PayloadSeal(sealer))  # type: ignore[arg-type]


def stored_run(database: Database, sealer: Sealer = OLD_FIRST) -> Execution:
    """Store a run with a sealed input, an inline and an external output, log lines and both kinds of checkpoints."""
    store, checkpoints = store_with(database, sealer), MongoCheckpointStore(database, ManualClock())  # type: ignore[arg-type]
    decision = accept_decision("only", "next")
    run = replace(decision.execution, input=sealer.seal(b'{"a":1}', input_place(decision.execution.id)))
    store.create(replace(decision, execution=run))
    record = store.save(run, claim_decision(run, "only"))
    lease = record.execution.lease_of("only")
    store.report(lease, ProgressReport((LogEvent(NOON, "agent.log", "line", data=b'{"a":1}'),)))
    sealed = sealer.seal(b'{"done":1}', f"{run.id}:checkpoint:only")
    checkpoints.save(lease, 1, sealed, is_external=False)
    output = StepOutput("only", b'{"b":1}', is_external=True)
    current = store.load(PUBLIC_INTEGRATOR, run.id)
    assert current is not None
    saved = store.save(current, complete(current, lease, output, NOON, TIMINGS, next_token="t"), lease=lease)
    return saved.execution


def rotate_all(database: Database, sealer: Sealer = NEW_FIRST) -> dict[str, str]:
    rotation, after, failures = MongoKeyRotation(database, sealer), "", {}
    while True:
        batch = rotation.rotate_batch(after)
        failures |= dict(batch.failures)
        after = batch.after
        if not after:
            return failures


def read(database: Database, sealer: Sealer, run: Execution) -> tuple[Any, ...]:
    record = store_with(database, sealer).read(PUBLIC_INTEGRATOR, run.id)
    assert record is not None
    opened = sealer.open(record.execution.input, input_place(run.id))
    return opened, dict(record.outputs), [event.data for event in record.events], record.execution.rev


def test_everything_opens_with_the_new_key_alone_and_no_poll_sees_a_change(database: Database) -> None:
    runs = [stored_run(database) for _ in range(45)]  # more than two batches
    before = [read(database, OLD_FIRST, run) for run in runs]
    assert MongoKeyRotation(database, NEW_FIRST).keys_in_use() == {"old": 45}
    assert rotate_all(database) == {}
    assert [read(database, NEW_ALONE, run) for run in runs] == before
    assert MongoKeyRotation(database, NEW_FIRST).keys_in_use() == {"new": 45}


def test_a_rotation_that_was_killed_is_started_again(database: Database) -> None:
    runs = [stored_run(database) for _ in range(25)]
    MongoKeyRotation(database, NEW_FIRST).rotate_batch()
    for run in runs:
        read(database, NEW_FIRST, run)  # in between, both keys are needed, and everything opens
    assert rotate_all(database) == {}
    for run in runs:
        read(database, NEW_ALONE, run)


def test_what_workers_write_meanwhile_is_kept(database: Database) -> None:
    run = stored_run(database)
    store, lease = store_with(database, OLD_FIRST), run.lease_of("next")
    checkpoints = MongoCheckpointStore(database, ManualClock())  # type: ignore[arg-type]
    ended = threading.Event()

    def rotate_for_ever() -> None:
        while not ended.is_set():
            rotate_all(database)

    thread = threading.Thread(target=rotate_for_ever)
    thread.start()
    for number in range(60):
        store.report(lease, ProgressReport((LogEvent(NOON, "agent.log", "line", data=b'{"n":%d}' % number),)))
        state = OLD_FIRST.seal(b'{"done":%d}' % number, f"{run.id}:checkpoint:next")
        checkpoints.save(lease, number, state, is_external=number % 2 == 1)
    ended.set()
    thread.join()
    rotate_all(database)
    _, _, data, _ = read(database, NEW_ALONE, run)
    assert [each for each in data if b'"n"' in each] == [b'{"n":%d}' % number for number in range(60)]
    newest = checkpoints.load_newest(lease)
    assert newest is not None
    assert NEW_ALONE.open(newest, f"{run.id}:checkpoint:next") == b'{"done":59}'


def test_a_large_output_that_a_slow_worker_seals_with_the_old_key_is_left_for_the_next_rotation(
    database: Database,
) -> None:
    run, store = stored_run(database), store_with(database, OLD_FIRST)
    assert rotate_all(database) == {}
    lease, output = run.lease_of("next"), StepOutput("next", b'{"c":1}', is_external=True)
    current = store.load(PUBLIC_INTEGRATOR, run.id)
    assert current is not None
    run = store.save(current, complete(current, lease, output, NOON, TIMINGS), lease=lease).execution
    before = read(database, OLD_FIRST, run)
    assert MongoKeyRotation(database, NEW_FIRST).keys_in_use() == {"new": 1, "old": 1}
    assert rotate_all(database) == {}
    assert read(database, NEW_ALONE, run) == before


def test_a_missing_key_is_told_and_keeps_no_other_run_back(database: Database) -> None:
    lost = stored_run(database, Sealer(KeyRing({"lost": bytes(32)}), seals_payloads=True))
    other = stored_run(database)
    failures = rotate_all(database)
    assert set(failures) == {lost.id}
    assert "'lost'" in failures[lost.id]
    read(database, NEW_ALONE, other)


def test_the_command_says_which_key_may_go(
    database: Database, mongodb_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    stored_run(database)
    sealed = OLD_FIRST.seal(b"{}", "public:agent:a:a")
    database.collection("agent_memory").insert_one({"_id": "public:agent:a:a", "json": sealed})
    keys = ",".join(f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in (("new", NEW), ("old", OLD)))
    for name, value in (("MONGODB_URL", mongodb_url), ("REDIS_URL", redis_url), ("BUCKET_ENCRYPTION_KEYS", keys)):
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(rotate_data, [])
    assert result.exit_code == 0, result.output
    assert "2 sealed again by new, 0 left" in result.output
    assert "Nothing is sealed by old any more" in result.output
    memory = database.collection("agent_memory").find_one({})
    assert memory is not None
    assert key_id_of(memory["json"]) == "new"
    monkeypatch.delenv("BUCKET_ENCRYPTION_KEYS")
    assert CliRunner().invoke(rotate_data, []).exit_code == 1
