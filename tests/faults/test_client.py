"""The client while the server is killed and comes back, and while the client itself is killed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bucket_client import Bucket, Execution, MapResult
from tests.api_client import RunClient
from tests.faults import map_program
from tests.stack import Stack
from tests.waiting import wait_until

T = TypeVar("T")
COUNTER = {"agents": ["counter"]}


def assert_each_ran_once(stack: Stack, runs: RunClient, count: int) -> None:
    """Check in MongoDB that there is one completed run for each input, and in the agents' file that each ran once."""
    executions = stack.mongo()["executions"]
    counted = Counter(runs.file.read_text().split())
    ids = {line.split(":")[0] for line in counted}
    found = executions.count_documents({"_id": {"$in": list(ids)}, "status": "completed"})
    assert (found, len(ids), set(counted.values())) == (count, count, {1})


def while_api_is_killed(
    stack: Stack, call: Callable[[], T], progress: Callable[[], int], kill_after: Sequence[int]
) -> T:
    """Return what ``call`` returns in a thread, while the API is killed and started again at each progress given.

    The API is started by the main thread, because it dies with the thread that did so.
    """
    with ThreadPoolExecutor(1) as caller:
        called = caller.submit(call)
        for due in kill_after:
            wait_until(lambda due=due: progress() >= due or called.done(), 60, f"{due} of the call")
            assert not called.done(), "the call must last until the API is killed"
            stack.kill("api")
            stack.start("api")
        return called.result()


@pytest.fixture
def stored(stack: Stack) -> Callable[[], int]:
    """Return what counts the runs that were stored since the test began."""
    executions = stack.mongo()["executions"]
    before = executions.count_documents({})
    return lambda: executions.count_documents({}) - before


def test_a_wait_outlives_an_api_that_is_killed_twice(stack: Stack, runs: RunClient, stored: Callable[[], int]) -> None:
    with Bucket(stack.url) as bucket:

        def run_and_wait() -> Execution:
            run = bucket.run(COUNTER, {"file": str(runs.file), "seconds": 8})
            return bucket.wait(run.execution_id, timeout=60)

        assert while_api_is_killed(stack, run_and_wait, stored, kill_after=[1, 1]).status == "completed"
    assert_each_ran_once(stack, runs, 1)


def test_submits_that_break_off_are_repeated_and_run_once(
    stack: Stack, runs: RunClient, stored: Callable[[], int]
) -> None:
    """Each submit that the API had stored when it was killed is found again by the key of its repeat."""
    with Bucket(stack.url, retries=10) as bucket:

        def run_and_wait() -> Sequence[Execution]:
            given = {"file": str(runs.file)}
            with ThreadPoolExecutor(8) as pool:
                submitted = list(pool.map(lambda _: bucket.run(COUNTER, given), range(400)))
            return bucket.wait_many([run.execution_id for run in submitted], timeout=60)

        done = while_api_is_killed(stack, run_and_wait, stored, kill_after=[20, 120])
    assert {run.status for run in done} == {"completed"}
    assert_each_ran_once(stack, runs, 400)


def test_a_map_outlives_an_api_that_is_killed_twice(stack: Stack, runs: RunClient, stored: Callable[[], int]) -> None:
    inputs = [{"number": number, "file": str(runs.file), "seconds": 0.02} for number in range(300)]
    with Bucket(stack.url) as bucket:

        def map_all() -> list[MapResult]:
            return list(bucket.map(COUNTER, inputs, concurrency=100))

        results = while_api_is_killed(stack, map_all, stored, kill_after=[1, 150])
    assert sorted(result.index for result in results) == list(range(300))
    assert all(result.execution and result.execution.result["number"] == result.index for result in results)
    assert_each_ran_once(stack, runs, 300)


def test_changes_outlive_an_api_that_is_killed_and_leave_none_out(stack: Stack, runs: RunClient) -> None:
    with Bucket(stack.url) as bucket:
        next(bucket.changes("survivor", follow=False), None)
        ids = {bucket.run(COUNTER, {"file": str(runs.file), "seconds": 0.5}).execution_id for _ in range(20)}
        seen: dict[str, Execution] = {}

        def read_until_all_are_seen() -> None:
            for change in bucket.changes("survivor", only_done=True, page_size=3):
                seen[change.execution_id] = change
                if seen.keys() >= ids:
                    return

        while_api_is_killed(stack, read_until_all_are_seen, lambda: len(seen), kill_after=[1, 7])
        assert {seen[execution_id].result["attempt"] for execution_id in ids} == {1}
        bucket.delete_consumer("survivor")


def test_a_log_is_followed_over_a_restart_without_a_line_twice(stack: Stack, runs: RunClient) -> None:
    script = {"script": [*(f"running:0.3@{percent}" for percent in range(10, 110, 10)), "completed"]}
    with Bucket(stack.url) as bucket:
        execution_id = bucket.run("simulate", script).execution_id
        sequence: list[int] = []

        def follow() -> None:
            sequence.extend(line["seq"] for line in bucket.logs(execution_id, follow=True))

        while_api_is_killed(stack, follow, lambda: len(sequence), kill_after=[2])
    assert sequence == list(range(1, len(sequence) + 1))
    assert runs.poll(execution_id).body["total"] == len(sequence)


def numbers_in(path: Path) -> list[int]:
    """Return the numbers that a map program has printed; a last line without its end is none."""
    return [int(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def start_map(stack: Stack, runs: RunClient, root: Path, count: int) -> subprocess.Popen[Any]:
    command = [sys.executable, map_program.__file__, stack.url, count, 200, root / "map.state", runs.file]
    with (root / "printed").open("a") as printed, (root / "errors").open("a") as errors:
        return subprocess.Popen(list(map(str, command)), stdout=printed, stderr=errors)


@pytest.mark.parametrize("kill_after", [[0], [1, 130, 420], [50, 60, 70, 80]], ids=str)
def test_a_map_that_is_killed_goes_on_where_it_stood(
    stack: Stack, runs: RunClient, tmp_path: Path, kill_after: list[int]
) -> None:
    """It is killed once it has printed so many results, also right after its first submit (0), then runs to its end."""
    count = 500
    executions = stack.mongo()["executions"]
    before = executions.count_documents({})
    for printed_results in kill_after:
        process = start_map(stack, runs, tmp_path, count)
        wait_until(
            lambda due=printed_results: (
                len(set(numbers_in(tmp_path / "printed"))) >= due and executions.count_documents({}) > before
            ),
            30,
            (tmp_path / "errors").read_text(),
        )
        process.kill()
        process.wait()
    assert start_map(stack, runs, tmp_path, count).wait(60) == 0, (tmp_path / "errors").read_text()
    printed = Counter(numbers_in(tmp_path / "printed"))
    assert sorted(printed) == list(range(count)), "a result is missing"
    assert sum(printed.values()) <= count + len(kill_after), "at most the one that a kill fell into comes again"
    assert executions.count_documents({}) - before == count
    assert_each_ran_once(stack, runs, count)
