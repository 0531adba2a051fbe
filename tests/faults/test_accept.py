"""Submits whose API, answer or server dies: scenarios 1 to 6, 29, 31, 32 and 39."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import requests

from shared.queue.message import PRIORITY_FIRST_OFFER, list_key
from tests.api_client import EVERY_PROCESS, Answer, Runs, asked, at_once, worst
from tests.faults.inspection import messages, restart_with, stored
from tests.faults.proxy import Proxy
from tests.stack import Stack
from tests.waiting import descendants, wait_until


def test_01_an_api_that_dies_after_its_insert_has_accepted_the_run(stack: Stack, runs: Runs) -> None:
    restart_with(stack, "api", BUCKET_FAULTS="api.inserted=kill")

    executions = stack.mongo().executions

    def dies(**key: str) -> bool:
        before = executions.count_documents({})
        try:
            answer = runs.submit(**key)
        except requests.ConnectionError:
            return executions.count_documents({}) > before  # or the one that died before had not let go of its port
        assert answer.status == 503, answer  # the process that took the dead one's place has not seen Redis yet
        return False

    wait_until(partial(dies, key="killed"), 10, "an API process dies of the submit with a key")
    wait_until(dies, 10, "another dies of the submit without one")
    restart_with(stack, "api")

    again = runs.submit(key="killed")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert runs.done(again.execution_id)["status"] == "completed"
    wait_until(lambda: len(runs.counted()) == 2, 10, "the run without a key, which nobody can poll, completes too")
    assert executions.count_documents({"idempotency.key": "killed"}) == 1


def test_01_an_api_that_dies_after_the_insert_of_a_batch_has_accepted_all_of_it(stack: Stack, runs: Runs) -> None:
    restart_with(stack, "api", BUCKET_FAULTS="api.inserted=kill")
    with pytest.raises(requests.ConnectionError):
        runs.batch(20, key="killed-batch")
    restart_with(stack, "api")

    again = runs.batch(20, key="killed-batch")
    assert {item["idempotency_replayed"] for item in again.body["items"]} == {True}
    ids = [item["execution_id"] for item in again.body["items"]]
    assert {poll["status"] for poll in runs.all_done(ids)} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counted()) == sorted(ids), "each of them, and once"


def test_01_an_api_that_dies_after_the_insert_of_a_crowd_has_accepted_all_that_were_in_it(
    stack: Stack, runs: Runs
) -> None:
    restart_with(stack, "api", BUCKET_FAULTS="api.group_inserted=kill")
    asked_for: list[str] = []
    lost: list[str] = []

    def is_lost_with_others() -> bool:
        keys = [f"crowd-{len(asked_for) + number}" for number in range(24)]
        asked_for.extend(keys)
        stack.pause("mongod")  # behind the insert that is under way the others gather
        with ThreadPoolExecutor(len(keys)) as callers:
            answers = [callers.submit(partial(runs.submit, key=key)) for key in keys]
            time.sleep(0.4)
            stack.resume("mongod")
        told = zip(keys, answers, strict=True)
        lost.extend(key for key, answer in told if isinstance(answer.exception(), requests.ConnectionError))
        return len(lost) > 1

    wait_until(is_lost_with_others, 30, "an API process dies of a group")
    restart_with(stack, "api")

    again = {key: runs.submit(key=key) for key in asked_for}
    assert any("Idempotency-Replayed" in again[key].headers for key in lost), "what was stored is found again"
    ids = {answer.execution_id for answer in again.values()}
    assert len(ids) == len(asked_for)
    assert {poll["status"] for poll in runs.all_done(sorted(ids))} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counted()) == sorted(ids), "each of them, and once"


def test_02_an_api_that_dies_before_its_insert_has_accepted_nothing_and_a_retry_makes_one_run(
    stack: Stack, runs: Runs
) -> None:
    stack.pause("mongod")  # the insert cannot have been applied when the API dies

    def submit_until_cut() -> None:
        while True:  # until it dies under one: where this machine stood still, the first is refused meanwhile
            assert runs.submit(key="before").status == 503

    with ThreadPoolExecutor(1) as caller:
        lost = caller.submit(submit_until_cut)
        time.sleep(0.3)
        stack.kill("api")
        with pytest.raises(requests.ConnectionError):
            lost.result()
    stack.resume("mongod")
    stack.start("api")
    run = runs.submit(key="before").execution_id
    assert runs.done(run)["status"] == "completed"
    assert stack.mongo().executions.count_documents({"idempotency.key": "before"}) == 1
    assert len(runs.counted()) == 1


def test_03_fifty_submits_of_one_key_at_once_make_one_run(stack: Stack, runs: Runs) -> None:
    answers = at_once(partial(runs.submit, key="fifty"), 50)
    (run,) = {answer.execution_id for answer in answers}
    assert runs.done(run)["status"] == "completed"
    assert runs.submit("echo", key="fifty").error_code == "idempotency_key_reused"
    assert stack.mongo().executions.count_documents({"idempotency.key": "fifty"}) == 1
    assert runs.counted() == [f"{run}:counter:1"]


def test_04_a_submit_while_redis_is_closed_is_answered_in_time_and_what_was_accepted_runs(
    stack: Stack, runs: Runs
) -> None:
    stack.kill("redis")
    answers = at_once(runs.submit, 8)
    assert {answer.status for answer in answers} <= {202, 503}, "202 before it is noticed, 503 after"
    assert worst(answers) < 3
    stack.start("redis")
    accepted = [answer.execution_id for answer in answers if answer.status == 202]
    assert {poll["status"] for poll in runs.all_done(accepted)} <= {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counted()) == sorted(accepted)


def test_05_a_frozen_redis_holds_no_submit_and_no_thread(stack: Stack, runs: Runs) -> None:
    stack.pause("redis")
    answers = at_once(runs.submit, 40)
    assert {answer.status for answer in answers} <= {202, 503}
    assert worst(answers) < 4  # one of 40 waits for one of 32 threads, which wait for Redis half a second at most
    stack.resume("redis")
    wait_until(
        lambda: {answer.status for answer in at_once(runs.submit, EVERY_PROCESS)} == {202},
        10,
        "all threads accept again",
    )
    accepted = [answer.execution_id for answer in answers if answer.status == 202]
    assert {poll["status"] for poll in runs.all_done(accepted)} <= {"completed"}


def test_06_a_lost_reply_to_the_bell_runs_one_execution_once(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    with Proxy(stack.sockets / "proxy.sock", stack.sockets / "redis.sock") as proxy:
        restart_with(stack, "api", REDIS_URL=proxy.redis_url)
        proxy.lose_reply_to(b"LPUSH")
        run = runs.submit().execution_id
        assert proxy.cuts == 1
        assert stack.redis().llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1, "it is not sent again blindly"
        stack.redis().lpush(
            list_key("default", PRIORITY_FIRST_OFFER),
            stack.redis().lindex(list_key("default", PRIORITY_FIRST_OFFER), 0) or "",
        )
        stack.start("worker")
        poll = runs.done(run)
        assert (poll["status"], poll["steps"][0]["attempts"]) == ("completed", 1)
        wait_until(lambda: messages(stack) == 0, 10, "both bells were answered")
        stack.stop("api")
    stack.start("api")
    assert runs.counted() == [f"{run}:counter:1"]
    assert stack.mongo().executions.count_documents({"_id": run}) == 1


def test_29_what_was_accepted_is_there_after_mongod_was_killed(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    run = runs.submit().execution_id
    stack.kill("mongod")
    stack.start("mongod")
    assert stored(stack, run)["status"] == "queued"
    stack.start("worker")
    assert runs.done(run)["status"] == "completed"


def test_31_an_api_that_ends_answers_what_it_has_taken_with_no_5xx(stack: Stack, runs: Runs) -> None:
    accepted: list[str] = []
    refused: list[Answer] = []

    def submit_until_cut() -> None:
        with suppress(requests.ConnectionError):
            while True:
                answer = runs.submit()
                if answer.status == 202:
                    accepted.append(answer.execution_id)
                else:
                    refused.append(answer)

    with ThreadPoolExecutor(8) as callers:
        for _ in range(8):
            callers.submit(submit_until_cut)
        time.sleep(1)
        stack.stop("api")
    assert stack.exit_code("api") == 0
    assert not refused
    stack.start("api")
    assert {poll["status"] for poll in runs.all_done(accepted)} == {"completed"}


def test_32_a_hundred_polls_at_once_hold_up_no_submit(stack: Stack, runs: Runs) -> None:
    run = runs.submit(seconds=3).execution_id
    with ThreadPoolExecutor(100) as callers:
        polls = [callers.submit(partial(runs.poll, run)) for _ in range(100)]
        health, submit = runs.get("/health"), runs.submit("echo")
        assert {poll.result().status for poll in polls} == {200}
    assert (health.status, submit.status) == (200, 202)
    assert worst([health, submit]) < 2
    runs.all_done([run, submit.execution_id])


BOMBS = {
    "deep": b'{"input_data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep_list": b'{"input_data":{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}}",
    "long_integer": b'{"input_data":{"a":' + b"9" * 900_000 + b"}}",
    "large_exponent": b'{"input_data":{"a":1e999999999}}',
    "too_long": b'{"input_data":{"a":"' + b"x" * 8_000_000 + b'"}}',
    "same_keys": b"{" + b",".join(b'"basket_name":"x"' for _ in range(50_000)) + b"}",
    "surrogate": b'{"basket_name":"\\ud800"}',
}


def test_39_json_bombs_are_refused_soon_and_leave_no_memory_behind(stack: Stack) -> None:
    before = memory_of_api(stack)
    for name, bomb in BOMBS.items():
        headers = {"Content-Type": "application/json"}
        post = partial(requests.post, f"{stack.url}/run-basket", data=bomb, headers=headers, timeout=10)
        answers = [asked(post) for _ in range(5)]
        assert {answer.status for answer in answers} <= {400, 404, 413, 422}, name
        assert min(answer.seconds for answer in answers) < 0.5, name
    assert memory_of_api(stack) - before < 150 * 1024


def memory_of_api(stack: Stack) -> int:
    """The resident memory of the API's processes, in KiB."""
    total = 0
    for pid in {stack.pid("api"), *descendants(stack.pid("api"))}:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.split("VmRSS:")[1].split()[0])
    return total


def test_the_api_is_started_again_where_one_of_its_processes_is_killed(stack: Stack, runs: Runs) -> None:
    os.kill(min(descendants(stack.pid("api"))), signal.SIGKILL)

    def completes() -> bool:
        with suppress(requests.ConnectionError):
            answer = runs.submit()
            return answer.status == 202 and runs.done(answer.execution_id)["status"] == "completed"
        return False

    wait_until(completes, 15, "runs are accepted")
