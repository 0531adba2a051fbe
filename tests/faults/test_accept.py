"""Submits if the API, its response or a server is lost: scenarios 1 to 6, 29, 31, 32 and 39."""

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

from shared.domain.execution import PRIORITY_FIRST_OFFER
from shared.queue.message import list_key
from tests.api_client import EVERY_PROCESS, ApiResponse, RunClient, longest_s, send_in_parallel, send_timed
from tests.faults.inspection import count_messages, restart_with, stored_run
from tests.faults.proxy import Proxy
from tests.stack import Stack
from tests.waiting import descendants, wait_until


def test_01_an_api_that_dies_after_its_insert_has_accepted_the_run(stack: Stack, runs: RunClient) -> None:
    restart_with(stack, "api", BUCKET_FAULTS="api.inserted=kill")

    executions = stack.mongo().executions

    def dies(**key: str) -> bool:
        before = executions.count_documents({})
        try:
            response = runs.submit(**key)
        except requests.ConnectionError:
            return (
                executions.count_documents({}) > before
            )  # else the process that died before had not released its port
        assert response.status == 503, response  # the process that replaced the dead one has not checked Redis yet
        return False

    wait_until(partial(dies, key="killed"), 10, "an API process dies of the submit with a key")
    wait_until(dies, 10, "another dies of the submit without one")
    restart_with(stack, "api")

    again = runs.submit(key="killed")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert runs.wait_done(again.execution_id)["status"] == "completed"
    wait_until(
        lambda: len(runs.counter_lines()) == 2, 10, "the run without a key, whose id no caller knows, completes too"
    )
    assert executions.count_documents({"idempotency.key": "killed"}) == 1


def test_01_an_api_that_dies_after_the_insert_of_a_batch_has_accepted_all_of_it(stack: Stack, runs: RunClient) -> None:
    restart_with(stack, "api", BUCKET_FAULTS="api.inserted=kill")
    with pytest.raises(requests.ConnectionError):
        runs.batch(20, key="killed-batch")
    restart_with(stack, "api")

    again = runs.batch(20, key="killed-batch")
    assert {item["idempotency_replayed"] for item in again.body["items"]} == {True}
    ids = [item["execution_id"] for item in again.body["items"]]
    assert {poll["status"] for poll in runs.wait_all_done(ids)} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counter_lines()) == sorted(ids), "each of them once"


def test_01_an_api_that_dies_after_a_group_commit_has_accepted_all_runs_of_the_group(
    stack: Stack, runs: RunClient
) -> None:
    restart_with(stack, "api", BUCKET_FAULTS="api.group_inserted=kill")
    keys_sent: list[str] = []
    lost_keys: list[str] = []

    def is_lost_with_others() -> bool:
        keys = [f"crowd-{len(keys_sent) + number}" for number in range(24)]
        keys_sent.extend(keys)
        stack.pause("mongod")  # the other submits gather behind the running insert
        with ThreadPoolExecutor(len(keys)) as callers:
            responses = [callers.submit(partial(runs.submit, key=key)) for key in keys]
            time.sleep(0.4)
            stack.resume("mongod")
        pairs = zip(keys, responses, strict=True)
        lost_keys.extend(key for key, response in pairs if isinstance(response.exception(), requests.ConnectionError))
        return len(lost_keys) > 1

    wait_until(is_lost_with_others, 30, "an API process dies of a group")
    restart_with(stack, "api")

    again = {key: runs.submit(key=key) for key in keys_sent}
    assert any("Idempotency-Replayed" in again[key].headers for key in lost_keys), "stored runs are found again"
    ids = {response.execution_id for response in again.values()}
    assert len(ids) == len(keys_sent)
    assert {poll["status"] for poll in runs.wait_all_done(sorted(ids))} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counter_lines()) == sorted(ids), "each of them once"


def test_02_an_api_that_dies_before_its_insert_has_accepted_nothing_and_a_retry_makes_one_run(
    stack: Stack, runs: RunClient
) -> None:
    stack.pause("mongod")  # the insert cannot have been applied when the API dies

    def submit_until_cut() -> None:
        while True:  # until the API dies during one; on a busy machine the first one may be refused before
            assert runs.submit(key="before").status == 503

    with ThreadPoolExecutor(1) as caller:
        submitting = caller.submit(submit_until_cut)
        time.sleep(0.3)
        stack.kill("api")
        with pytest.raises(requests.ConnectionError):
            submitting.result()
    stack.resume("mongod")
    stack.start("api")
    run = runs.submit(key="before").execution_id
    assert runs.wait_done(run)["status"] == "completed"
    assert stack.mongo().executions.count_documents({"idempotency.key": "before"}) == 1
    assert len(runs.counter_lines()) == 1


def test_03_fifty_submits_of_one_key_at_once_make_one_run(stack: Stack, runs: RunClient) -> None:
    responses = send_in_parallel(partial(runs.submit, key="fifty"), 50)
    (run,) = {response.execution_id for response in responses}
    assert runs.wait_done(run)["status"] == "completed"
    assert runs.submit("echo", key="fifty").error_code == "idempotency_key_reused"
    assert stack.mongo().executions.count_documents({"idempotency.key": "fifty"}) == 1
    assert runs.counter_lines() == [f"{run}:counter:1"]


def test_04_a_submit_while_redis_is_closed_returns_in_time_and_accepted_runs_complete(
    stack: Stack, runs: RunClient
) -> None:
    stack.kill("redis")
    responses = send_in_parallel(runs.submit, 8)
    assert {response.status for response in responses} <= {202, 503}, "202 before it is noticed, 503 after"
    assert longest_s(responses) < 3
    stack.start("redis")
    accepted = [response.execution_id for response in responses if response.status == 202]
    assert {poll["status"] for poll in runs.wait_all_done(accepted)} <= {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counter_lines()) == sorted(accepted)


def test_05_a_frozen_redis_blocks_no_submit_and_no_thread(stack: Stack, runs: RunClient) -> None:
    stack.pause("redis")
    responses = send_in_parallel(runs.submit, 40)
    assert {response.status for response in responses} <= {202, 503}
    assert (
        longest_s(responses) < 4
    )  # of 40 requests some wait for one of 32 threads, which wait at most half a second for Redis
    stack.resume("redis")
    wait_until(
        lambda: {response.status for response in send_in_parallel(runs.submit, EVERY_PROCESS)} == {202},
        10,
        "all threads accept again",
    )
    accepted = [response.execution_id for response in responses if response.status == 202]
    assert {poll["status"] for poll in runs.wait_all_done(accepted)} <= {"completed"}


def test_06_a_lost_reply_to_the_task_message_runs_one_execution_once(stack: Stack, runs: RunClient) -> None:
    stack.stop("worker")
    with Proxy(stack.sockets / "proxy.sock", stack.sockets / "redis.sock") as proxy:
        restart_with(stack, "api", REDIS_URL=proxy.redis_url)
        proxy.lose_reply_to(b"LPUSH")
        run = runs.submit().execution_id
        assert proxy.cuts == 1
        assert stack.redis().llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1, "it is not sent a second time"
        stack.redis().lpush(
            list_key("default", PRIORITY_FIRST_OFFER),
            stack.redis().lindex(list_key("default", PRIORITY_FIRST_OFFER), 0) or "",
        )
        stack.start("worker")
        poll = runs.wait_done(run)
        assert (poll["status"], poll["steps"][0]["attempts"]) == ("completed", 1)
        wait_until(lambda: count_messages(stack) == 0, 10, "both messages were processed")
        stack.stop("api")
    stack.start("api")
    assert runs.counter_lines() == [f"{run}:counter:1"]
    assert stack.mongo().executions.count_documents({"_id": run}) == 1


def test_29_accepted_runs_survive_a_kill_of_mongod(stack: Stack, runs: RunClient) -> None:
    stack.stop("worker")
    run = runs.submit().execution_id
    stack.kill("mongod")
    stack.start("mongod")
    assert stored_run(stack, run)["status"] == "queued"
    stack.start("worker")
    assert runs.wait_done(run)["status"] == "completed"


def test_31_an_api_that_stops_finishes_its_requests_without_5xx(stack: Stack, runs: RunClient) -> None:
    accepted: list[str] = []
    refused: list[ApiResponse] = []

    def submit_until_cut() -> None:
        with suppress(requests.ConnectionError):
            while True:
                response = runs.submit()
                if response.status == 202:
                    accepted.append(response.execution_id)
                else:
                    refused.append(response)

    with ThreadPoolExecutor(8) as callers:
        for _ in range(8):
            callers.submit(submit_until_cut)
        time.sleep(1)
        stack.stop("api")
    assert stack.exit_code("api") == 0
    assert not refused
    stack.start("api")
    assert {poll["status"] for poll in runs.wait_all_done(accepted)} == {"completed"}


def test_32_a_hundred_concurrent_polls_do_not_delay_a_submit(stack: Stack, runs: RunClient) -> None:
    run = runs.submit(seconds=3).execution_id
    with ThreadPoolExecutor(100) as callers:
        polls = [callers.submit(partial(runs.poll, run)) for _ in range(100)]
        health, submit = runs.get("/health"), runs.submit("echo")
        assert {poll.result().status for poll in polls} == {200}
    assert (health.status, submit.status) == (200, 202)
    assert longest_s([health, submit]) < 2
    runs.wait_all_done([run, submit.execution_id])


BOMBS = {
    "deep": b'{"input_data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep_list": b'{"input_data":{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}}",
    "long_integer": b'{"input_data":{"a":' + b"9" * 900_000 + b"}}",
    "large_exponent": b'{"input_data":{"a":1e999999999}}',
    "too_long": b'{"input_data":{"a":"' + b"x" * 8_000_000 + b'"}}',
    "same_keys": b"{" + b",".join(b'"basket_name":"x"' for _ in range(50_000)) + b"}",
    "surrogate": b'{"basket_name":"\\ud800"}',
}


def test_39_json_bombs_are_refused_quickly_and_leave_no_memory_behind(stack: Stack) -> None:
    before = memory_of_api(stack)
    for name, bomb in BOMBS.items():
        headers = {"Content-Type": "application/json"}
        post = partial(requests.post, f"{stack.url}/run-basket", data=bomb, headers=headers, timeout=10)
        responses = [send_timed(post) for _ in range(5)]
        assert {response.status for response in responses} <= {400, 404, 413, 422}, name
        assert min(response.seconds for response in responses) < 0.5, name
    assert memory_of_api(stack) - before < 150 * 1024


def memory_of_api(stack: Stack) -> int:
    """Return the resident memory of the API's processes, in KiB."""
    total = 0
    for pid in {stack.pid("api"), *descendants(stack.pid("api"))}:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.split("VmRSS:")[1].split()[0])
    return total


def test_the_api_serves_again_after_one_of_its_processes_is_killed(stack: Stack, runs: RunClient) -> None:
    os.kill(min(descendants(stack.pid("api"))), signal.SIGKILL)

    def completes() -> bool:
        with suppress(requests.ConnectionError):
            response = runs.submit()
            return response.status == 202 and runs.wait_done(response.execution_id)["status"] == "completed"
        return False

    wait_until(completes, 15, "runs are accepted")
