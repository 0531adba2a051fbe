"""The client against a real stack: the same calls by the sync and by the async client."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bucket_client import (
    AsyncBucket,
    Bucket,
    BucketError,
    BucketWarning,
    Conflict,
    Execution,
    ExecutionFailed,
    Invalid,
    NotFound,
    Unavailable,
)
from tests.stack import Stack

AGENTS = Path(__file__).parents[1] / "agents"
ECHO = {"agents": ["echo"]}


class AwaitedBucket:
    """An AsyncBucket with the methods of a Bucket: each call runs in an event loop, an iterator is read to its end."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._bucket = self._runner.run(self._open(url))

    async def _open(self, url: str) -> AsyncBucket:
        return AsyncBucket(url)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            result = getattr(self._bucket, name)(*args, **options)
            if isinstance(result, AsyncIterator):
                return iter(self._runner.run(self._read(result)))
            return self._runner.run(result)

        return call

    @staticmethod
    async def _read(values: AsyncIterator[Any]) -> list[Any]:
        return [value async for value in values]

    def close(self) -> None:
        self._runner.run(self._bucket.close())
        self._runner.close()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture(params=[Bucket, AwaitedBucket], ids=["sync", "async"])
def bucket(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """Yield a client; AwaitedBucket has the methods of Bucket."""
    client = request.param(stack.url)
    yield client
    client.close()


def test_both_clients_have_the_same_methods_with_the_same_arguments_and_docs() -> None:
    def methods(kind: type) -> dict[str, Any]:
        return {name: value for name, value in vars(kind).items() if not name.startswith("_")}

    sync, asynchronous = methods(Bucket), methods(AsyncBucket)
    assert sync.keys() == asynchronous.keys()
    for name in sync.keys() - {"close"}:
        assert inspect.signature(sync[name]) == inspect.signature(asynchronous[name])
        assert sync[name].__doc__ == asynchronous[name].__doc__


def test_a_run_is_submitted_waited_for_and_polled(bucket: Bucket) -> None:
    run = bucket.run("working_test", {"transactions": []}, tags=["first"], metadata={"a": 1}, reference="r-1")
    assert (run.basket_name, run.done, run.rev) == ("working_test", False, 1)
    done = bucket.wait(run.execution_id, timeout=20)
    assert (done.status, done.tags, done.metadata, done.reference) == ("completed", ["first"], {"a": 1}, "r-1")
    again = bucket.poll(run.execution_id)
    assert (again.rev, again.result) == (done.rev, done.result)
    assert bucket.output(run.execution_id, done.steps[0]["step"]) == done.result
    assert done.created_at is not None
    assert abs(datetime.now(UTC) - done.created_at) < timedelta(minutes=5)


def test_a_run_of_an_agent_and_of_a_definition(bucket: Bucket) -> None:
    assert bucket.wait(bucket.run_agent("echo", {"a": 1}).execution_id).result == {"a": 1}
    assert bucket.run_and_wait(ECHO, {"b": 2}).result == {"b": 2}


def test_a_failed_run_says_where_and_why_and_can_be_retried(bucket: Bucket) -> None:
    script = {"script": ["running:0.1", "failed:card_declined"]}
    revisions: list[int] = []
    with pytest.raises(ExecutionFailed) as caught:
        bucket.run_and_wait("simulate", script, on_progress=lambda seen: revisions.append(seen.rev))
    assert (caught.value.step, caught.value.error_code) == ("simulate", "card_declined")
    assert caught.value.log_lines
    assert revisions == sorted(set(revisions))
    failed = caught.value.execution
    retried = bucket.retry(failed.execution_id, start="start")
    assert retried.retry_of == failed.execution_id
    assert bucket.wait(retried.execution_id, check=False).status == "failed"
    [listed] = bucket.executions(retry_of=failed.execution_id)
    assert listed.execution_id == retried.execution_id


def test_a_repeat_with_the_same_key_is_the_same_run_also_when_it_is_done(bucket: Bucket) -> None:
    key = f"key-{datetime.now(UTC).timestamp()}"
    first = bucket.run_and_wait(ECHO, {"a": 1}, idempotency_key=key)
    second = bucket.run_and_wait(ECHO, {"a": 1}, idempotency_key=key)
    assert (second.execution_id, second.result) == (first.execution_id, {"a": 1})
    with pytest.raises(Conflict, match="key"):
        bucket.run(ECHO, {"a": 2}, idempotency_key=key)


def test_many_are_submitted_waited_for_and_polled(bucket: Bucket) -> None:
    items = [{"config": ECHO, "input_data": {"n": number}} for number in range(520)]
    outcomes = bucket.submit_many([*items, {"basket_name": "nope"}])
    runs = [outcome for outcome in outcomes if isinstance(outcome, Execution)]
    assert len(runs) == 520
    assert isinstance(outcomes[-1], NotFound)
    ids = [run.execution_id for run in runs]
    done: list[str] = []
    results = bucket.wait_many(ids, lambda run: done.append(run.execution_id), timeout=60)
    assert [run.result for run in results] == [{"n": number} for number in range(520)]
    assert sorted(done) == sorted(ids)
    assert [run.result for run in bucket.poll_many(ids[:3])] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_map_yields_each_result_once_and_a_refused_input_as_its_error(bucket: Bucket) -> None:
    inputs: list[dict[str, Any]] = [{"n": number} for number in range(230)]
    inputs[7] = {"secret": "x"}  # refused by Bucket
    inputs[9] = {"n": {1}}  # refused by the client
    seen: list[int] = []
    results = list(bucket.map(ECHO, inputs, concurrency=100, on_progress=lambda progress: seen.append(progress.done)))
    assert sorted(result.index for result in results) == list(range(230))
    errors = {result.index: result.error for result in results if result.error is not None}
    assert {index: type(error) for index, error in errors.items()} == {7: Invalid, 9: Invalid}
    for result in results:
        if result.execution is not None:
            assert result.execution.result == result.input == inputs[result.index]
    assert seen[-1] == 230


def test_an_input_that_fails_is_a_result_of_a_map(bucket: Bucket) -> None:
    [result] = bucket.map("simulate", [{"script": ["failed:no_luck"]}])
    assert result.execution is not None
    assert result.execution.error is not None
    assert result.execution.error["error_code"] == "no_luck"


def test_changes_come_with_results_and_are_acknowledged_when_the_next_one_is_asked_for(stack: Stack) -> None:
    with Bucket(stack.url) as client:
        next(client.changes("ledger", follow=False), None)  # it begins now
        ids = [client.run_and_wait(ECHO, {"n": number}, tags=["feed"]).execution_id for number in range(3)]
        feed = client.changes("ledger", tag="feed", only_done=True)
        seen: dict[str, Execution] = {}
        while not seen.keys() >= set(ids):  # a change may come more than once
            change = next(feed)
            seen[change.execution_id] = change
        assert [seen[execution_id].result for execution_id in ids] == [{"n": 0}, {"n": 1}, {"n": 2}]
        feed.close()  # the page that it read last was not acknowledged: it comes again
        again = {change.execution_id for change in client.changes("ledger", tag="feed", follow=False)}
        assert change.execution_id in again
        assert again <= set(ids)
        assert list(client.changes("ledger", tag="feed", follow=False)) == []
        assert [consumer["consumer"] for consumer in client.consumers()] == ["ledger"]
        client.delete_consumer("ledger")


def test_a_result_too_large_for_a_page_is_whole_all_the_same(stack: Stack) -> None:
    with Bucket(stack.url) as client:
        next(client.changes("large", follow=False), None)
        text = "x" * 900_000
        ids = {client.run_and_wait(ECHO, {"text": text, "n": n}, tags=["large"]).execution_id for n in range(12)}
        seen = {change.execution_id: change for change in client.changes("large", only_done=True, follow=False)}
        assert all(seen[execution_id].result["text"] == text for execution_id in ids)
        client.delete_consumer("large")


def test_a_log_is_read_to_the_end_of_its_run(bucket: Bucket) -> None:
    run = bucket.run("simulate", {"script": ["running:0.3@50", "running:0.3@100", "completed"]})
    lines = list(bucket.logs(run.execution_id, follow=True))
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["message"] == bucket.poll(run.execution_id).logs[-1]["message"]
    assert [line["seq"] for line in bucket.logs(run.execution_id, after=2)] == list(range(3, len(lines) + 1))


def test_runs_are_listed_by_filters_page_by_page(bucket: Bucket) -> None:
    tag = f"list-{datetime.now(UTC).timestamp()}"
    begun = datetime.now(UTC) - timedelta(minutes=1)
    bucket.submit_many([{"config": ECHO, "input_data": {}, "tags": [tag]}] * 450)
    assert len({run.execution_id for run in bucket.executions(tag=tag, created_after=begun)}) == 450
    assert len(list(bucket.executions(tag=tag, limit=7, order="oldest"))) == 7
    assert list(bucket.executions(tag=tag, created_before=begun)) == []
    assert {run.status for run in bucket.executions(tag=tag, status=["queued", "running"])} <= {"queued", "running"}
    with pytest.raises(Invalid, match="status"):
        list(bucket.executions(status="statuz"))


def test_a_run_is_cancelled(bucket: Bucket) -> None:
    run = bucket.run("simulate", {"script": ["running:30", "completed"]})
    assert bucket.cancel(run.execution_id, "no longer needed").cancel is not None
    assert bucket.wait(run.execution_id, timeout=20, check=False).status == "cancelled"


def test_the_catalogue(bucket: Bucket) -> None:
    name = f"my check {datetime.now(UTC).timestamp()}"
    created = bucket.create_basket(name, agents=["echo"], description="an own one")
    assert created["name"] == name
    with pytest.raises(Conflict):
        bucket.create_basket(name, agents=["echo"])
    assert bucket.basket(name)["agents"] == ["echo"]
    assert name in {basket["name"] for basket in bucket.baskets()}
    bucket.delete_basket(name)
    with pytest.raises(NotFound):
        bucket.basket(name)
    assert bucket.agent("echo")["name"] in {spec["name"] for spec in bucket.agents()}
    assert bucket.health()["status"] == "healthy"


def test_a_misspelt_key_of_an_item_is_raised_as_a_warning(bucket: Bucket) -> None:
    with pytest.warns(BucketWarning, match="colour") as caught:
        bucket.submit_many([{"config": ECHO, "input_data": {}, "colour": "red"}])
    assert caught[0].filename == __file__ or "asyncio" in caught[0].filename


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a?b", "None"])
def test_what_is_no_id_asks_for_no_other_address(bucket: Bucket, name: str) -> None:
    with pytest.raises((Invalid, NotFound)):
        bucket.poll(name)


def test_a_key_that_no_header_can_hold_is_refused(bucket: Bucket) -> None:
    for key in ("ä", "a\nb", "a,b", "x" * 256):
        with pytest.raises(BucketError) as caught:
            bucket.run(ECHO, {}, idempotency_key=key)
        assert not isinstance(caught.value, Unavailable)


def test_a_server_that_is_not_there_is_unavailable_and_a_stranger_is_no_bucket(stack: Stack) -> None:
    with Bucket("http://127.0.0.1:9", retries=0) as client, pytest.raises(Unavailable, match="did not reply at"):
        client.health()
    with Bucket(f"{stack.url}/docs", retries=0) as client, pytest.raises(NotFound):
        client.health()
