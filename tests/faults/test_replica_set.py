"""Elections, lost majorities, lost replies and refused writes, on three mongod: scenarios 23 to 27, and full disks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import WriteConcern
from pymongo.collection import Collection
from pymongo.errors import PyMongoError
from pymongo.server_description import ServerDescription

from shared.bootstrap import API_STORE_DEADLINE_S
from shared.domain.access.api_key import KeyRequest, issue_key, issue_successor
from shared.domain.access.caller import Role
from shared.domain.execution import Idempotency
from shared.errors import OutcomeUnknown, Unavailable
from shared.store.access.key_store import MongoKeyStore
from shared.store.database import Database
from shared.store.executions.store import MongoExecutionStore
from shared.store.server_clock import ServerClock
from tests.api_client import AGENTS, EVERY_PROCESS, ApiResponse, RunClient, longest_s, send_in_parallel
from tests.builders import accept_decision
from tests.faults.feed_verifier import FeedConsumer, assert_no_gaps
from tests.faults.inspection import assert_completed_once, steps_with_event, stored_run
from tests.faults.replica_set import ReplicaSet
from tests.stack import Stack
from tests.waiting import wait_until

WORKER = "bucket-worker"
DISK_IS_FULL = 14031
WRITTEN_AND_TIMED_OUT = {"writeConcernError": {"code": 64, "errmsg": "a test has lost the reply"}}
SHUTS_DOWN = {"writeConcernError": {"code": 91, "errmsg": "a test shuts it down"}}


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], replica_set: ReplicaSet) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), MONGODB_URL=replica_set.url)


@pytest.fixture
def runs(stack: Stack, replica_set: ReplicaSet, tmp_path: Path) -> Iterator[RunClient]:
    yield RunClient(stack, tmp_path / "counted")
    replica_set.mend()
    stack.repair()
    submit = RunClient(stack, tmp_path / "none").submit
    wait_until(lambda: {response.status for response in send_in_parallel(submit, EVERY_PROCESS)} == {202}, 30)


class Submits:
    """Submits with a key each while something happens, and repeats each one until it is accepted."""

    def __init__(self, runs: RunClient, name: str) -> None:
        self.runs = runs
        self.name = name
        self.answers: list[ApiResponse] = []

    def go_on_for(self, seconds: float) -> list[str]:
        """Submit ten runs a second for this time, and return their ids."""
        until, ids = time.monotonic() + seconds, []
        while time.monotonic() < until:
            ids.append(self.accepted(f"{self.name}-{time.monotonic()}"))
            time.sleep(0.1)
        return ids

    def accepted(self, key: str) -> str:
        """Submit with ``key`` until it is accepted."""
        self.answers += self.runs.submit_until_accepted(key)
        return self.answers[-1].execution_id

    def check(self) -> None:
        """Check that each response came in time and was a 202, or a 503 with ``Retry-After``."""
        assert {response.status for response in self.answers} <= {202, 503}
        assert all("Retry-After" in response.headers for response in self.answers if response.status == 503)
        assert longest_s(self.answers) < 5


def test_23_a_primary_killed_in_mid_run_loses_no_run(replica_set: ReplicaSet, runs: RunClient) -> None:
    long = runs.submit(seconds=4).execution_id
    runs.wait_begun(long)
    submits = Submits(runs, "killed")
    before = submits.go_on_for(1)
    runs.wait_all_done(before)  # a claim is a lock and not a record: a claim lost with its primary is made again
    replica_set.kill(replica_set.primary())
    after = submits.go_on_for(5)
    submits.check()
    assert_completed_once(runs, [long, *before, *after])


def test_24_three_step_downs_lose_no_run_and_no_poll_goes_back(replica_set: ReplicaSet, runs: RunClient) -> None:
    chain = runs.submit(*["counter"] * 4, seconds=2.5).execution_id
    submits = Submits(runs, "down")
    ids, revs = [], [0]
    for _ in range(3):
        replica_set.step_down()
        ids += submits.go_on_for(3)
        poll = runs.poll(chain)
        assert poll.status in {200, 503}
        if poll.status == 200:
            assert poll.body["rev"] >= revs[-1]
            revs.append(poll.body["rev"])
    submits.check()
    assert_completed_once(runs, ids)
    poll = runs.wait_done(chain, 40)
    assert (poll["status"], len(steps_with_event(poll, "step.completed"))) == ("completed", 4)
    assert {step["attempts"] for step in poll["steps"]} == {1}, "an election does not count as a lost worker"


def test_24_quick_idempotent_runs_survive_a_step_down_between_accept_and_end(
    stack: Stack, replica_set: ReplicaSet, runs: RunClient
) -> None:
    stack.pause("worker")
    ids = [runs.submit("echo", "echo", n=number).execution_id for number in range(10)]
    replica_set.step_down()
    stack.resume("worker")
    polls = runs.wait_all_done(ids)
    assert [(poll["status"], poll["result"]["n"]) for poll in polls] == [("completed", n) for n in range(10)]
    assert {step["attempts"] for poll in polls for step in poll["steps"]} == {1}
    assert {tuple(steps_with_event(poll, "step.completed")) for poll in polls} == {("echo", "echo-2")}


def test_24_the_feed_leaves_no_change_out_during_elections(
    stack: Stack, replica_set: ReplicaSet, runs: RunClient
) -> None:
    reader, submits, ids = FeedConsumer(runs), Submits(runs, "fed"), []
    for _ in range(2):
        replica_set.step_down()
        ids += submits.go_on_for(2)
        reader.read()
    for strike in (replica_set.kill, replica_set.pause):
        strike(replica_set.primary())
        ids += submits.go_on_for(3)
        reader.read_until_seen(ids)
        wait_until(reader.has_caught_up, 15, "the feed has caught up")
        replica_set.mend()
    assert_no_gaps(stack)


@pytest.mark.parametrize(("how", "times"), [(WRITTEN_AND_TIMED_OUT, 2), ({"closeConnection": True}, 2)])
def test_25_and_26_a_write_whose_reply_is_lost_is_counted_once(
    stack: Stack, replica_set: ReplicaSet, runs: RunClient, how: dict[str, object], times: int
) -> None:
    run = runs.submit("counter", "counter", seconds=0.5).execution_id
    runs.wait_begun(run)
    with replica_set.failing("findAndModify", "update", times=times, appName=WORKER, **how):
        poll = runs.wait_done(run)
    assert (poll["status"], [step["attempts"] for step in poll["steps"]]) == ("completed", [1, 1])
    assert steps_with_event(poll, "step.completed") == ["counter", "counter-2"]
    assert len(runs.counter_lines_of(run)) == 2
    assert {step["losses"] for step in stored_run(stack, run)["steps"].values()} == {0}


def test_25_a_write_to_a_primary_that_then_shuts_down_is_counted_once(replica_set: ReplicaSet, runs: RunClient) -> None:
    """The driver then searches for a primary, which is still the same one; this may take longer than a lease."""
    run = runs.submit("counter", "counter", seconds=0.5).execution_id
    runs.wait_begun(run)
    with replica_set.failing("findAndModify", times=2, appName=WORKER, **SHUTS_DOWN):
        poll = runs.wait_done(run, 40)
    assert (poll["status"], steps_with_event(poll, "step.completed")) == ("completed", ["counter", "counter-2"])


def test_25_an_insert_whose_reply_is_lost_makes_one_run_under_its_key_and_none_without(
    stack: Stack, replica_set: ReplicaSet, runs: RunClient
) -> None:
    with replica_set.failing("insert", times=2, appName="bucket-api", **WRITTEN_AND_TIMED_OUT):
        responses = [runs.submit(key="reply-lost"), runs.submit()]
    assert {(response.status, response.error_code) for response in responses} == {(503, "outcome_unknown")}
    run = Submits(runs, "again").accepted("reply-lost")
    assert runs.wait_done(run)["status"] == "completed"
    request_id = responses[1].body["request_id"]
    wait_until(lambda: not stack.mongo().executions.count_documents({"request_id": request_id}), 15, "it is withdrawn")
    assert stack.mongo().executions.count_documents({"idempotency.key": "reply-lost"}) == 1
    time.sleep(2)
    assert runs.counter_lines() == [f"{run}:counter:1"]


def test_25_a_rotation_whose_reply_is_lost_is_known_to_have_been_made(replica_set: ReplicaSet) -> None:
    """A repeated one would be refused, and nobody would ever see the new key."""
    with closing(Database(replica_set.url, "test", 3.0, retries=False)) as database:
        keys, now = MongoKeyStore(database), datetime.now(UTC).replace(microsecond=0)
        _, old = issue_key(KeyRequest(Role.READER, "acme"), now, "test", b"a pepper")
        _, new = issue_successor(old, now, "test", b"a pepper")
        keys.add(old)
        with replica_set.failing("findAndModify", times=1, **WRITTEN_AND_TIMED_OUT):
            replaced = keys.replace(old.id, new, now)
        assert replaced is not None
        assert (replaced.id, replaced.replaced_by, replaced.expires_at) == (old.id, new.id, now)


def test_27_without_a_majority_nothing_is_accepted_and_nothing_doubled(
    replica_set: ReplicaSet, runs: RunClient
) -> None:
    under_way = runs.submit("counter", "counter", seconds=2).execution_id
    runs.wait_begun(under_way)
    wait_until(lambda: runs.poll(under_way).body["status"] == "running", 10, "a majority has its claim")
    for index in replica_set.secondaries():
        replica_set.pause(index)
    refused = [runs.submit(key="minority") for _ in range(2)]
    assert {response.status for response in refused} == {503}
    assert longest_s(refused) < 5
    time.sleep(4)
    assert not runs.poll(under_way).body.get("done")
    replica_set.mend()
    run = Submits(runs, "minority").accepted("minority")
    assert runs.wait_done(run, 40)["status"] == "completed"
    assert len(runs.counter_lines_of(run)) == 1
    poll = runs.wait_done(under_way, 40)
    assert (poll["status"], steps_with_event(poll, "step.completed")) == ("completed", ["counter", "counter-2"])


def test_27_a_key_of_a_run_without_a_majority_blocks_no_caller(
    stack: Stack, replica_set: ReplicaSet, runs: RunClient
) -> None:
    with replica_set.alone():
        refused = [runs.submit(key="alone") for _ in range(3)]
    assert {(response.status, response.error_code) for response in refused} == {(503, "outcome_unknown")}
    assert longest_s(refused) < 5
    run = Submits(runs, "again").accepted("alone")
    assert runs.wait_done(run)["status"] == "completed"
    assert len(runs.counter_lines()) == stack.mongo().executions.count_documents({"idempotency.key": "alone"}) == 1


def test_27_a_new_primary_without_a_majority_shows_no_older_revision(replica_set: ReplicaSet) -> None:
    """It has a revision of which it cannot know whether a majority had it before the election."""
    with closing(Database(replica_set.url, "test", 3.0, retries=False)) as database:
        store = MongoExecutionStore(database, ServerClock(database.read_server_time, sync_every_s=60))
        run = store.create(accept_decision())
        assert store.read(run.integrator, run.id) is not None
        replica_set.step_down()
        replica_set.wait_whole()
        executions = database.collection("executions").with_options(write_concern=WriteConcern(w=1))
        with replica_set.alone():
            wait_until(lambda: _is_updated(executions, run.id, rev=9), 30, "the new primary accepts writes")
            with pytest.raises(Unavailable):
                store.read(run.integrator, run.id)
        record = store.read(run.integrator, run.id)
        assert record is not None
        assert record.execution.rev == 9


def _is_updated(executions: Collection[dict[str, Any]], execution_id: str, rev: int) -> bool:
    with suppress(PyMongoError):
        return executions.update_one({"_id": execution_id}, {"$set": {"rev": rev}}).matched_count == 1
    return False


def test_27_the_store_queries_twice_for_a_run_without_a_majority(
    replica_set: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each query takes a full deadline: mongod reports the duplicate key only after it has waited for a majority.

    The driver tells mongod a deadline that is one round trip earlier than its own; over a slow network mongod's is over
    first, which is what is set here.
    """
    monkeypatch.setattr(ServerDescription, "min_round_trip_time", 0.2)
    calls: list[str] = []
    with closing(Database(replica_set.url, "test", API_STORE_DEADLINE_S, retries=False)) as database:
        database.ensure_indexes()
        store = MongoExecutionStore(database, ServerClock(database.read_server_time, sync_every_s=60))
        database.observe = lambda method, _seconds: calls.append(method)
        with replica_set.alone():
            for expected in ("answer of the store was lost", "no majority knows"):
                calls.clear()
                with pytest.raises(OutcomeUnknown) as refused:
                    store.create(accept_decision(idempotency=Idempotency("looked for", "the same")))
                assert expected in refused.value.message
    assert calls == ["create", "create"] * 2, "two inserts, and a query of the run that has the key after each"


def test_a_disk_that_is_full_for_a_while_refuses_submits_and_costs_no_step(
    replica_set: ReplicaSet, runs: RunClient
) -> None:
    run = runs.submit("counter", "counter", seconds=1).execution_id
    runs.wait_begun(run)
    with replica_set.failing("insert", "update", "findAndModify", errorCode=DISK_IS_FULL):
        refused = send_in_parallel(partial(runs.submit, key="full"), 8)
        time.sleep(1)  # less than a lease: a worker that cannot write for longer may lose its step to another worker
    assert {response.status for response in refused} == {503}
    poll = runs.wait_done(run)
    assert (poll["status"], steps_with_event(poll, "step.completed")) == ("completed", ["counter", "counter-2"])
    assert runs.wait_done(Submits(runs, "full").accepted("full"))["status"] == "completed"


def test_writes_refused_by_a_validator_of_the_collection_succeed_after_it_is_removed(
    stack: Stack, runs: RunClient
) -> None:
    run = runs.submit("counter", "counter", seconds=1).execution_id
    runs.wait_begun(run)
    stack.mongo().command("collMod", "executions", validator={"nobody": "has this"}, validationLevel="strict")
    refused = runs.submit(key="ruled")
    time.sleep(1.5)
    stack.mongo().command("collMod", "executions", validator={}, validationLevel="off")
    assert refused.status == 503
    poll = runs.wait_done(run)
    assert (poll["status"], [step["attempts"] for step in poll["steps"]]) == ("completed", [1, 1])


def test_a_primary_locked_against_writes_blocks_no_caller_and_loses_nothing(
    replica_set: ReplicaSet, runs: RunClient
) -> None:
    run = runs.submit("counter", "counter", seconds=1).execution_id
    runs.wait_begun(run)
    primary = replica_set.primary()
    with replica_set.member(primary) as client:
        client.admin.command("fsync", lock=True)
        responses = send_in_parallel(partial(runs.submit, "echo", key="locked"), 8)
        time.sleep(2)
        client.admin.command("fsyncUnlock")
    assert {response.status for response in responses} == {503}
    assert longest_s(responses) < 5
    poll = runs.wait_done(run)
    assert (poll["status"], steps_with_event(poll, "step.completed")) == ("completed", ["counter", "counter-2"])
    again = Submits(runs, "locked")
    wait_until(lambda: runs.submit("echo", key="locked").status == 202, 15, "the retry is accepted")
    assert again.runs.wait_done(runs.submit("echo", key="locked").execution_id)["status"] == "completed"
