"""A crowd's runs are stored by one insert; whatever becomes of that, each caller is told of its own run, and soon."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from api.submission.group_commit import GROUPED_BYTES_MAX, GroupCommit, _Ticket
from shared import faults
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, Idempotency
from shared.domain.lifecycle.decision import Decision
from shared.errors import NotStorable, OutcomeUnknown, Unavailable
from shared.ids import new_execution_id
from shared.queue.message import PRIORITY_FIRST_OFFER, list_key
from shared.settings import Settings
from tests.builders import NOON, accepted, chain
from tests.faulty_store import FaultyStore
from tests.waiting import wait_until

LONG_S = 600.0  # of a turn that must not be waited for: the test would be stopped


@dataclass
class Crowd:
    """Callers who submit at once, and what their inserts are made by."""

    services: Services
    alone: FaultyStore
    many: FaultyStore
    callers: ThreadPoolExecutor

    def commits(self, turn_awaited_s: float = LONG_S) -> GroupCommit:
        return GroupCommit(self.services, turn_awaited_s)

    @contextmanager
    def behind_two(self, commits: GroupCommit) -> Iterator[list[Future[Execution]]]:
        """Have the runs of two callers stored and not offered yet, while the block runs."""
        are_there, may_go_on = threading.Semaphore(0), threading.Event()
        holding = iter([True, True])

        def hold() -> None:
            if next(holding, False):
                are_there.release()
                may_go_on.wait()

        with faults.armed("api.inserted", hold):
            both = [self.callers.submit(commits.store, fresh()) for _ in range(2)]
            try:
                for _ in both:
                    assert are_there.acquire(timeout=10), "they do not wait for each other"
                yield both
            finally:
                may_go_on.set()

    def waiting(self, commits: GroupCommit, runs: list[Decision]) -> list[Future[Execution]]:
        """Submit ``runs`` one after the other, each once the one before it waits."""
        already = len(commits._waiting)
        futures = []
        for number, run in enumerate(runs, already + 1):
            futures.append(self.callers.submit(commits.store, run))
            wait_until(lambda number=number: len(commits._waiting) == number, what="it waits")  # type: ignore[misc]
        return futures

    def bells(self) -> Any:
        return self.services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER))

    def stored(self) -> int:
        return self.services.database.collection("executions").count_documents({})


@pytest.fixture
def crowd(redis_url: str, mongodb_url: str) -> Iterator[Crowd]:
    services = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "api")
    with closing(services.database), closing(services.redis), ThreadPoolExecutor(40) as callers:
        services.database.ensure_indexes()
        alone, many = FaultyStore(services.store), FaultyStore(services.queries)
        yield Crowd(replace(services, store=alone, queries=many), alone, many, callers)  # type: ignore[arg-type]


def fresh(**changes: Any) -> Decision:
    return accepted(id=new_execution_id(NOON), **changes)


def test_a_caller_alone_waits_for_nobody(crowd: Crowd) -> None:
    commits = crowd.commits()
    runs = [fresh() for _ in range(3)]
    assert [commits.store(run) for run in runs] == [run.execution for run in runs]
    assert (crowd.alone.asked["create"], crowd.many.asked["insert_all"]) == (3, 0)
    assert crowd.bells() == 3


def test_all_who_come_while_somebody_stores_share_the_next_insert(crowd: Crowd) -> None:
    commits = crowd.commits()
    runs = [fresh() for _ in range(20)]
    with crowd.behind_two(commits) as both:
        others = crowd.waiting(commits, runs)
    assert [other.result(10) for other in others] == [run.execution for run in runs]
    for one in both:
        one.result(10)
    assert (crowd.alone.asked["create"], crowd.many.asked["insert_all"]) == (2, 1)
    assert (crowd.stored(), crowd.bells()) == (22, 22)
    for run in runs:
        assert crowd.services.views.get(run.execution.id), "each is shown"
    assert commits.store(fresh()), "and the next finds the turn free"
    assert crowd.alone.asked["create"] == 3


def test_a_group_has_a_bound_and_those_beyond_it_are_the_next(crowd: Crowd) -> None:
    commits = crowd.commits()
    with crowd.behind_two(commits):
        others = crowd.waiting(commits, [fresh() for _ in range(36)])
    for other in others:
        other.result(10)
    assert (crowd.many.asked["insert_all"], crowd.stored()) == (2, 38)


def test_of_one_key_in_a_crowd_one_run_is_made(crowd: Crowd) -> None:
    commits = crowd.commits()
    key, now = Idempotency("same", "print"), crowd.services.clock.now()  # a key is kept for a day of the store's time
    with crowd.behind_two(commits):
        others = crowd.waiting(commits, [fresh(idempotency=key, created_at=now) for _ in range(8)] + [fresh()])
    *same, other = [each.result(10) for each in others]
    assert len({run.id for run in same}) == 1
    assert other.id != same[0].id
    assert (crowd.stored(), crowd.bells()) == (4, 4)


def test_what_the_store_refuses_of_one_run_is_told_of_that_run_alone(crowd: Crowd) -> None:
    commits = crowd.commits()
    withdrawn = fresh()
    crowd.services.store.withdraw(PUBLIC_INTEGRATOR, withdrawn.execution.id)
    unfit = fresh(input_source="\ud800")  # which is no UTF-8: the whole insert is refused before it is sent
    with crowd.behind_two(commits):
        good, bad, gone, last = crowd.waiting(commits, [fresh(), unfit, withdrawn, fresh()])
    assert {good.result(10).id, last.result(10).id}
    with pytest.raises(NotStorable):
        bad.result(10)
    with pytest.raises(OutcomeUnknown):
        gone.result(10)
    assert (crowd.stored(), crowd.bells()) == (5, 4), "the tombstone is one of them"


@pytest.mark.parametrize(("fault", "error", "stored"), [("before", Unavailable, 2), ("after", OutcomeUnknown, 7)])
def test_an_insert_that_fails_is_told_to_each_and_the_turn_goes_on(
    crowd: Crowd, fault: str, error: type[Exception], stored: int
) -> None:
    commits = crowd.commits()
    crowd.many.fail("insert_all", **{fault: 1})
    with crowd.behind_two(commits):
        others = crowd.waiting(commits, [fresh() for _ in range(5)])
    for other in others:
        with pytest.raises(error):
            other.result(10)
    assert crowd.stored() == stored
    assert commits.store(fresh())


def test_one_alone_who_fails_hands_the_turn_on(crowd: Crowd) -> None:
    commits = crowd.commits()
    crowd.alone.fail("create", before=1)
    with pytest.raises(Unavailable):
        commits.store(fresh())
    assert commits.store(fresh())


def test_a_fault_of_our_own_leaves_nobody_waiting(crowd: Crowd) -> None:
    def breaks(_: Callable[[], Any]) -> None:
        raise RuntimeError("something nobody thought of")

    commits = crowd.commits()
    crowd.many.lay("insert_all", breaks)
    with crowd.behind_two(commits):
        others = crowd.waiting(commits, [fresh() for _ in range(3)])
    for other in others:
        with pytest.raises(RuntimeError):
            other.result(10)
    assert commits.store(fresh())


def test_who_has_waited_long_enough_stores_for_all_who_wait(crowd: Crowd) -> None:
    commits = crowd.commits(turn_awaited_s=0.2)
    runs = [fresh() for _ in range(5)]
    with crowd.behind_two(commits) as both:
        others = [crowd.callers.submit(commits.store, run) for run in runs]
        assert [other.result(10) for other in others] == [run.execution for run in runs]
        assert not any(one.done() for one in both)
    for one in both:
        one.result(10)
    assert crowd.stored() == 7
    wait_until(lambda: commits._storing_count == 0, what="the turn is free again")


def test_what_was_refused_is_forgotten_at_once(crowd: Crowd) -> None:
    def tickets() -> int:
        return sum(type(each) is _Ticket for each in gc.get_objects())

    commits = crowd.commits()
    crowd.many.fail("insert_all", before=1)
    gc.collect()
    gc.disable()  # which would find what holds itself, but late: by then an outage has filled the memory
    try:
        with crowd.behind_two(commits) as both:
            others = crowd.waiting(commits, [fresh() for _ in range(5)])
        for one in both:
            one.result(10)
        assert {type(other.exception(10)) for other in others} == {Unavailable}
        others.clear()
        wait_until(lambda: not tickets(), what="no ticket is left")
    finally:
        gc.enable()


def test_a_large_input_and_a_retry_with_outputs_wait_for_nobody_and_hold_up_nobody(crowd: Crowd) -> None:
    commits = crowd.commits()
    with crowd.behind_two(commits) as both:
        assert commits.store(fresh(input=b"1" * (GROUPED_BYTES_MAX + 1)))
        assert commits.store(fresh(), {"only": b"{}"})
        assert not any(one.done() for one in both)
    assert crowd.many.asked["insert_all"] == 0


def test_a_large_basket_waits_for_nobody_and_holds_up_nobody(crowd: Crowd) -> None:
    commits = crowd.commits()
    literal = {"text": "x" * GROUPED_BYTES_MAX}
    large = replace(chain("only"), steps=(replace(chain("only").steps[0], input=literal),))
    with crowd.behind_two(commits) as both:
        alone = crowd.callers.submit(commits.store, fresh(basket=large))
        assert alone.result(10)
        assert not any(one.done() for one in both)
    assert crowd.many.asked["insert_all"] == 0


def test_callers_in_any_order_store_each_run_once(crowd: Crowd) -> None:
    commits = crowd.commits(turn_awaited_s=0.002)  # so that some go on before their turn
    runs = [fresh() for _ in range(400)]
    store: Callable[[Decision], Execution] = commits.store
    assert list(crowd.callers.map(store, runs)) == [run.execution for run in runs]
    assert (crowd.stored(), crowd.bells()) == (400, 400)
    assert (commits._storing_count, len(commits._waiting)) == (0, 0)
    assert crowd.many.asked["insert_all"] > 0
