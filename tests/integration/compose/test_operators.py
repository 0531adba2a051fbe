"""``bucketd dead-letters`` with real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compose.cli.commands import command_group
from compose.cli.dead_letters import requeue_letter
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import PRIORITY_FIRST_OFFER, PUBLIC_INTEGRATOR, ErrorKind, RunError
from shared.domain.lifecycle.transitions import fail
from shared.domain.status import StepStatus
from shared.queue.message import list_key
from shared.settings import Settings
from tests.builders import NOON, accept_decision, claim_decision
from tests.conftest import Servers
from tests.faulty_store import FaultyStore


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    built = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "operator")
    built.database.ensure_indexes()
    with closing(built.redis), closing(built.database):
        yield built


@pytest.fixture
def failed_run(services: Services) -> str:
    """The id of a run that is a dead letter."""
    run = services.store.create(accept_decision("a", "b"))
    run = services.store.save(run, claim_decision(run, "a")).execution
    lease = run.lease_of("a")
    error = RunError("worker_lost", "three workers were lost", ErrorKind.LOST, "a", "a", 3)
    services.store.save(run, fail(run, lease, error, NOON), lease=lease)
    return run.id


def bucketd(services: Services, *words: str) -> Result:
    servers = {"REDIS_URL": services.settings.redis_url, "MONGODB_URL": services.settings.mongodb_url}
    return CliRunner().invoke(command_group, words, env=servers)


def test_dead_letters_are_listed_and_requeued(services: Services, failed_run: str) -> None:
    services.dead_letters.add_message(PUBLIC_INTEGRATOR, "('garbage',)")

    listing = bucketd(services, "dead-letters")
    assert listing.exit_code == 0, listing.output
    for text in (failed_run, "boring", "worker_lost", "three workers were lost", "('garbage',)", "came 1 times"):
        assert text in listing.output

    requeued = bucketd(services, "dead-letters", "requeue", failed_run)
    assert requeued.exit_code == 0, requeued.output
    retry = services.store.load(PUBLIC_INTEGRATOR, requeued.output.split()[-1])
    assert retry is not None
    assert (retry.retry_of, retry.steps["a"].status) == (failed_run, StepStatus.READY)
    assert services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1
    assert failed_run not in bucketd(services, "dead-letters").output
    again = bucketd(services, "dead-letters", "requeue", failed_run)
    assert (again.exit_code, f"requeued before, as {retry.id}" in again.output) == (1, True), again.output


def test_dead_letters_are_filtered_and_dismissed(services: Services, failed_run: str) -> None:
    for words in (["--error-code", "worker_lost"], ["--agent", "a"], ["--basket", "boring"]):
        assert failed_run in bucketd(services, "dead-letters", *words).output
        other = bucketd(services, "dead-letters", words[0], "other")
        assert (other.exit_code, other.output) == (0, "there are no such dead letters\n")
    services.dead_letters.add_message(PUBLIC_INTEGRATOR, "('garbage',)")
    for letter in services.dead_letters.list_page(None, 9):
        dismissed = bucketd(services, "dead-letters", "dismiss", letter.id)
        assert (dismissed.exit_code, dismissed.output.startswith(f"{letter.id} was dismissed at 20")) == (0, True)
    assert bucketd(services, "dead-letters").output == "there are no dead letters\n"


def test_where_keys_are_required_a_requeue_needs_none_and_is_in_the_audit(
    services: Services, failed_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKET_AUTH", "required")
    requeued = bucketd(services, "dead-letters", "requeue", failed_run)
    assert requeued.exit_code == 0, requeued.output
    services.audit_sequencer.sequence(services.clock.now(), 4)
    (event,) = services.database.collection("audit").find({"action": "dead_letter.requeue"})
    assert (event["subject"], event["object"], event["outcome"]) == ("bucketd", failed_run, "ok")


def test_a_requeue_whose_insert_was_not_confirmed_makes_one_run(services: Services, failed_run: str) -> None:
    store = FaultyStore(services.store)
    store.fail("create", after=1)
    retry_id = requeue_letter(replace(services, store=store), failed_run)  # type: ignore[arg-type]
    executions = services.database.collection("executions")
    assert [run["_id"] for run in executions.find({"retry_of": failed_run})] == [retry_id]
    assert store.calls["create"] + store.calls["create_many"] == 1, "the second request finds it by the same key"


def test_a_requeue_is_refused_behind_a_full_queue_as_by_the_api(
    services: Services, failed_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compose.cli.dead_letters.RETRY_WITHIN_S", 0.2)
    monkeypatch.setenv("BUCKET_BACKLOG_MAX", "3")
    services.redis.lpush(list_key("default", PRIORITY_FIRST_OFFER), *["waits"] * 3)
    refused = bucketd(services, "dead-letters", "requeue", failed_run)
    assert refused.exit_code == 1
    assert "3 steps are waiting for a worker; nothing was stored" in refused.output
    assert services.database.collection("executions").count_documents({"retry_of": failed_run}) == 0


def test_a_dead_letter_that_cannot_be_requeued_is_reported_with_exit_code_1(services: Services) -> None:
    services.dead_letters.add_message(PUBLIC_INTEGRATOR, "garbage")
    (message,) = services.dead_letters.list_page(PUBLIC_INTEGRATOR, 1)
    for letter_id, detail in ((message.id, "could not be read"), ("nothing", "dead letter 'nothing' was not found")):
        refused = bucketd(services, "dead-letters", "requeue", letter_id)
        assert (refused.exit_code, detail in refused.output) == (1, True), refused.output


def test_without_urls_it_finds_the_stack_of_make_up_by_its_lock_file(
    services: Services, servers: Servers, tmp_path: Path
) -> None:
    """Its MongoDB is that of the lock file; the database is the embedded one, which is empty."""
    (tmp_path / "lock").write_text(json.dumps({"sockets": str(servers.sockets)}))
    result = CliRunner().invoke(command_group, ["dead-letters", "--data", str(tmp_path)])
    assert (result.exit_code, result.output) == (0, "there are no dead letters\n")


def test_without_a_stack_it_says_which_settings_are_needed(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"sockets": str(tmp_path / "gone")}))
    for data in (tmp_path, tmp_path / "never"):
        refused = CliRunner().invoke(command_group, ["dead-letters", "--data", str(data)])
        assert refused.exit_code == 1
        assert "REDIS_URL and MONGODB_URL" in refused.output
