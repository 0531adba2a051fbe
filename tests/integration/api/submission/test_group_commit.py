"""Group commit: concurrent submits share one insert, and each caller gets the result of its own run soon."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest

from api.submission.group_commit import GROUPED_BYTES_MAX, GroupCommit, _Ticket
from shared import fault_injection
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import PRIORITY_FIRST_OFFER, PUBLIC_INTEGRATOR, Execution, Idempotency
from shared.domain.lifecycle.decision import Decision
from shared.errors import NotStorable, OutcomeUnknown, Unavailable
from shared.ids import new_execution_id
from shared.queue.message import list_key
from shared.settings import Settings
from tests.builders import NOON, accept_decision, chain
from tests.faulty_store import FaultyStore
from tests.waiting import wait_until

LONG_S = 600.0  # a turn that must not be waited for: the test would be stopped


@dataclass
class Crowd:
    """Concurrent callers, and the stores that make their inserts."""

    services: Services
    alone: FaultyStore
    many: FaultyStore
    callers: ThreadPoolExecutor

    def commits(self, turn_awaited_s: float = LONG_S) -> GroupCommit:
        return GroupCommit(self.services, turn_awaited_s)

    @contextmanager
    def behind_two_inserts(self, commits: GroupCommit) -> Iterator[list[Future[Execution]]]:
        """While the block runs, the runs of two callers are stored but not offered yet."""
        are_there, may_go_on = threading.Semaphore(0), threading.Event()
        holding = iter([True, True])

        def hold() -> None:
            if next(holding, False):
                are_there.release()
                may_go_on.wait()

        with patch.dict(fault_injection.ARMED, {"api.inserted": hold}):
            both = [self.callers.submit(commits.store, new_run()) for _ in range(2)]
            try:
                for _ in both:
                    assert are_there.acquire(timeout=10), "the two do not wait for each other"
                yield both
            finally:
                may_go_on.set()

    def submit_waiting(self, commits: GroupCommit, runs: list[Decision]) -> list[Future[Execution]]:
        """Submit ``runs`` one after the other, each when the one before it waits."""
        already = len(commits._waiting)
        futures = []
        for number, run in enumerate(runs, already + 1):
            futures.append(self.callers.submit(commits.store, run))
            wait_until(lambda number=number: len(commits._waiting) == number, what="it waits")  # type: ignore[misc]
        return futures

    def count_messages(self) -> Any:
        return self.services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER))

    def count_stored(self) -> int:
        return self.services.database.collection("executions").count_documents({})


@pytest.fixture
def crowd(redis_url: str, mongodb_url: str) -> Iterator[Crowd]:
    services = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "api")
    with closing(services.database), closing(services.redis), ThreadPoolExecutor(40) as callers:
        services.database.ensure_indexes()
        alone, many = FaultyStore(services.store), FaultyStore(services.queries)
        yield Crowd(replace(services, store=alone, queries=many), alone, many, callers)  # type: ignore[arg-type]


def new_run(**changes: Any) -> Decision:
    return accept_decision(id=new_execution_id(NOON), **changes)


def test_a_single_caller_does_not_wait(crowd: Crowd) -> None:
    commits = crowd.commits()
    runs = [new_run() for _ in range(3)]
    assert [commits.store(run) for run in runs] == [run.execution for run in runs]
    assert (crowd.alone.calls["create"], crowd.many.calls["insert_all"]) == (3, 0)
    assert crowd.count_messages() == 3


def test_submits_during_an_insert_share_the_next_insert(crowd: Crowd) -> None:
    commits = crowd.commits()
    runs = [new_run() for _ in range(20)]
    with crowd.behind_two_inserts(commits) as both:
        others = crowd.submit_waiting(commits, runs)
    assert [other.result(10) for other in others] == [run.execution for run in runs]
    for one in both:
        one.result(10)
    assert (crowd.alone.calls["create"], crowd.many.calls["insert_all"]) == (2, 1)
    assert (crowd.count_stored(), crowd.count_messages()) == (22, 22)
    for run in runs:
        assert crowd.services.views.get(run.execution.integrator, run.execution.id), "each is shown"
    assert commits.store(new_run()), "and the next caller finds the turn free"
    assert crowd.alone.calls["create"] == 3


def test_a_group_is_bounded_and_the_rest_is_the_next_group(crowd: Crowd) -> None:
    commits = crowd.commits()
    with crowd.behind_two_inserts(commits):
        others = crowd.submit_waiting(commits, [new_run() for _ in range(36)])
    for other in others:
        other.result(10)
    assert (crowd.many.calls["insert_all"], crowd.count_stored()) == (2, 38)


def test_one_key_in_a_group_makes_one_run(crowd: Crowd) -> None:
    commits = crowd.commits()
    key, now = Idempotency("same", "print"), crowd.services.clock.now()  # a key is kept for a day by the store's clock
    with crowd.behind_two_inserts(commits):
        others = crowd.submit_waiting(
            commits, [new_run(idempotency=key, created_at=now) for _ in range(8)] + [new_run()]
        )
    *same, other = [future.result(10) for future in others]
    assert len({run.id for run in same}) == 1
    assert other.id != same[0].id
    assert (crowd.count_stored(), crowd.count_messages()) == (4, 4)


def test_a_run_that_the_store_refuses_fails_alone(crowd: Crowd) -> None:
    commits = crowd.commits()
    withdrawn = new_run()
    crowd.services.store.withdraw(PUBLIC_INTEGRATOR, withdrawn.execution.id)
    unfit = new_run(input_source="\ud800")  # not UTF-8: the whole insert is refused before it is sent
    with crowd.behind_two_inserts(commits):
        good, bad, withdrawn_future, last = crowd.submit_waiting(commits, [new_run(), unfit, withdrawn, new_run()])
    assert {good.result(10).id, last.result(10).id}
    with pytest.raises(NotStorable):
        bad.result(10)
    with pytest.raises(OutcomeUnknown):
        withdrawn_future.result(10)
    assert (crowd.count_stored(), crowd.count_messages()) == (5, 4), "one of them is the tombstone"


@pytest.mark.parametrize(("fault", "error", "stored"), [("before", Unavailable, 2), ("after", OutcomeUnknown, 7)])
def test_a_failed_insert_fails_each_caller_and_passes_the_turn_on(
    crowd: Crowd, fault: str, error: type[Exception], stored: int
) -> None:
    commits = crowd.commits()
    crowd.many.fail("insert_all", **{fault: 1})
    with crowd.behind_two_inserts(commits):
        others = crowd.submit_waiting(commits, [new_run() for _ in range(5)])
    for other in others:
        with pytest.raises(error):
            other.result(10)
    assert crowd.count_stored() == stored
    assert commits.store(new_run())


def test_a_single_caller_that_fails_passes_the_turn_on(crowd: Crowd) -> None:
    commits = crowd.commits()
    crowd.alone.fail("create", before=1)
    with pytest.raises(Unavailable):
        commits.store(new_run())
    assert commits.store(new_run())


def test_an_unexpected_error_leaves_no_caller_waiting(crowd: Crowd) -> None:
    def breaks(_: Callable[[], Any]) -> None:
        raise RuntimeError("an unexpected error")

    commits = crowd.commits()
    crowd.many.intercept_next("insert_all", breaks)
    with crowd.behind_two_inserts(commits):
        others = crowd.submit_waiting(commits, [new_run() for _ in range(3)])
    for other in others:
        with pytest.raises(RuntimeError):
            other.result(10)
    assert commits.store(new_run())


def test_a_caller_that_has_waited_long_enough_stores_for_all_waiting_callers(crowd: Crowd) -> None:
    commits = crowd.commits(turn_awaited_s=0.2)
    runs = [new_run() for _ in range(5)]
    with crowd.behind_two_inserts(commits) as both:
        others = [crowd.callers.submit(commits.store, run) for run in runs]
        assert [other.result(10) for other in others] == [run.execution for run in runs]
        assert not any(one.done() for one in both)
    for one in both:
        one.result(10)
    assert crowd.count_stored() == 7
    wait_until(lambda: commits._storing_count == 0, what="the turn is free again")


def test_refused_runs_are_freed_at_once(crowd: Crowd) -> None:
    def tickets() -> int:
        return sum(type(future) is _Ticket for future in gc.get_objects())

    commits = crowd.commits()
    crowd.many.fail("insert_all", before=1)
    gc.collect()
    gc.disable()  # it would free reference cycles, but too late: an outage would have filled the memory by then
    try:
        with crowd.behind_two_inserts(commits) as both:
            others = crowd.submit_waiting(commits, [new_run() for _ in range(5)])
        for one in both:
            one.result(10)
        assert {type(other.exception(10)) for other in others} == {Unavailable}
        others.clear()
        wait_until(lambda: not tickets(), what="no ticket is left")
    finally:
        gc.enable()


def test_a_large_input_and_a_retry_with_outputs_are_stored_alone_without_waiting(crowd: Crowd) -> None:
    commits = crowd.commits()
    with crowd.behind_two_inserts(commits) as both:
        assert commits.store(new_run(input=b"1" * (GROUPED_BYTES_MAX + 1)))
        assert commits.store(new_run(), {"only": b"{}"})
        assert not any(one.done() for one in both)
    assert crowd.many.calls["insert_all"] == 0


def test_a_large_basket_is_stored_alone_without_waiting(crowd: Crowd) -> None:
    commits = crowd.commits()
    literal = {"text": "x" * GROUPED_BYTES_MAX}
    large = replace(chain("only"), steps=(replace(chain("only").steps[0], input=literal),))
    with crowd.behind_two_inserts(commits) as both:
        alone = crowd.callers.submit(commits.store, new_run(basket=large))
        assert alone.result(10)
        assert not any(one.done() for one in both)
    assert crowd.many.calls["insert_all"] == 0


def test_callers_in_any_order_store_each_run_once(crowd: Crowd) -> None:
    commits = crowd.commits(turn_awaited_s=0.002)  # so that some continue before their turn
    runs = [new_run() for _ in range(400)]
    store: Callable[[Decision], Execution] = commits.store
    assert list(crowd.callers.map(store, runs)) == [run.execution for run in runs]
    assert (crowd.count_stored(), crowd.count_messages()) == (400, 400)
    assert (commits._storing_count, len(commits._waiting)) == (0, 0)
    assert crowd.many.calls["insert_all"] > 0
