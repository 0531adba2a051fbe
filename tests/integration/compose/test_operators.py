"""``bucketd dead-letters`` and ``bucketd agents check``, over real servers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compose.cli import main
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import PUBLIC_INTEGRATOR, ErrorKind, RunError
from shared.domain.lifecycle.transitions import fail
from shared.domain.status import StepStatus
from shared.queue.message import PRIORITY_FIRST_OFFER, list_key
from shared.settings import Settings
from tests.builders import NOON, accepted, claimed
from tests.conftest import Servers

AGENTS = Path(__file__).parents[2] / "agents"


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    made = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "operator")
    made.database.ensure_indexes()
    with closing(made.redis), closing(made.database):
        yield made


def bucketd(services: Services, *words: str) -> Result:
    servers = {"REDIS_URL": services.settings.redis_url, "MONGODB_URL": services.settings.mongodb_url}
    return CliRunner().invoke(main, words, env=servers)


def test_what_is_dead_is_listed_and_sent_again(services: Services) -> None:
    run = services.store.create(accepted("a", "b"))
    run = services.store.save(run, claimed(run, "a")).execution
    lease = run.lease_of("a")
    lost = RunError("worker_lost", "three workers were lost", ErrorKind.LOST, "a", "a", 3)
    services.store.save(run, fail(run, lease, lost, NOON), lease=lease)
    services.dead_letters.add_message(PUBLIC_INTEGRATOR, "('garbage',)")

    listed = bucketd(services, "dead-letters")
    assert listed.exit_code == 0, listed.output
    for said in (run.id, "boring", "worker_lost", "three workers were lost", "('garbage',)", "came 1 times"):
        assert said in listed.output

    sent = bucketd(services, "dead-letters", "requeue", run.id)
    assert sent.exit_code == 0, sent.output
    again = services.store.load(PUBLIC_INTEGRATOR, sent.output.split()[-1])
    assert again is not None
    assert (again.retry_of, again.steps["a"].status) == (run.id, StepStatus.READY)
    assert services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1
    assert f"retried as {again.id}" in bucketd(services, "dead-letters").output


def test_what_cannot_be_sent_again_is_said_and_the_exit_code_is_1(services: Services) -> None:
    services.dead_letters.add_message(PUBLIC_INTEGRATOR, "garbage")
    (message,) = services.dead_letters.page(PUBLIC_INTEGRATOR, 1)
    for letter_id, said in ((message.id, "could not be read"), ("nothing", "no dead letter 'nothing'")):
        refused = bucketd(services, "dead-letters", "requeue", letter_id)
        assert (refused.exit_code, said in refused.output) == (1, True), refused.output


def test_without_urls_it_finds_the_stack_of_make_up_by_its_note(
    services: Services, servers: Servers, tmp_path: Path
) -> None:
    """Its MongoDB is that of the note; the database is the embedded one, which nobody has written to."""
    (tmp_path / "lock").write_text(json.dumps({"sockets": str(servers.sockets)}))
    found = CliRunner().invoke(main, ["dead-letters", "--data", str(tmp_path)])
    assert (found.exit_code, found.output) == (0, "there are no dead letters\n")


def test_where_no_stack_is_it_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"sockets": str(tmp_path / "gone")}))
    for data in (tmp_path, tmp_path / "never"):
        refused = CliRunner().invoke(main, ["dead-letters", "--data", str(data)])
        assert refused.exit_code == 1
        assert "REDIS_URL and MONGODB_URL" in refused.output


def test_agents_are_checked_as_a_worker_loads_them(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["agents", "check", str(AGENTS)])
    assert told.exit_code == 0, told.output
    assert "echo 1.0.0 (test)" in told.output
    assert "cashflow_analyzer" in told.output

    shutil.copytree(AGENTS / "echo", tmp_path / "echo")
    (tmp_path / "echo" / "agent.py").write_text("def ran(given, ctx): ...")
    refused = CliRunner().invoke(main, ["agents", "check", str(tmp_path)])
    assert refused.exit_code == 1
    assert "no callable 'run'" in refused.output
