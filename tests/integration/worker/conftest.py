"""A worker's insides over a real MongoDB and a real Redis, under a clock that a test drives by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from shared.bootstrap import Services, bootstrap
from shared.domain.definitions.basket import SEQUENTIAL, Basket, BasketStep
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, ExecutionRecord
from shared.domain.lifecycle.transitions import rescue, start
from shared.domain.status import ExecutionStatus
from shared.ids import new_execution_id
from shared.live.publisher import Publisher
from shared.queue.message import TaskMessage
from shared.settings import Settings
from shared.store.executions.documents import stored_at_of
from shared.store.executions.settle import settle
from shared.store.executions.store import MongoExecutionStore
from shared.store.server_clock import ServerClock
from shared.telemetry.fleet_metrics import FleetMetrics
from tests.api_client import AGENTS
from tests.builders import HandClock
from tests.faulty_store import FaultyStore
from tests.waiting import wait_until
from worker.agent_loader import Agent, load_agents
from worker.steps.pending_writes import WRITE_DELAY_MAX_S
from worker.steps.runner import Runner
from worker.supervision.shared_slots import SharedSlots
from worker.supervision.step_interrupter import StepInterrupter

SETTINGS = {"lease_s": 0.8, "heartbeat_s": 0.2, "handoff_s": 0.2}


@dataclass
class Bench:
    """Everything that a test of the worker has in its hands."""

    services: Services
    store: FaultyStore
    batches: FaultyStore
    hand: HandClock
    agents: Mapping[str, Agent]
    unwritten_max_s: float = WRITE_DELAY_MAX_S

    def runner(self, **instead: Callable[..., Any]) -> Runner:
        """Answer a runner, with other callables for some agents."""
        agents = {name: replace(agent, run=instead.get(name, agent.run)) for name, agent in self.agents.items()}
        slots = SharedSlots(1)
        minder = StepInterrupter(slots, slots.slot(0), grace_s=1, drain_s=1, finish=lambda *_: None)
        return Runner(self.services, agents, minder, write_delay_max_s=self.unwritten_max_s)

    def accept(self, *agents: str, given: Mapping[str, Any] | None = None, **changes: Any) -> Execution:
        """Store a run of a chain of agents, as the API would; rings no bell."""
        steps: list[BasketStep] = []
        for number, agent in enumerate(agents or ("echo",), 1):
            steps.append(BasketStep(f"s{number}", agent, needs=tuple(step.id for step in steps[-1:])))
        run = Execution(
            id=new_execution_id(self.hand.now()),
            integrator=PUBLIC_INTEGRATOR,
            basket=Basket("bench", SEQUENTIAL, tuple(steps)),
            status=ExecutionStatus.QUEUED,
            steps={},
            created_at=self.hand.now(),
            request_id="req-bench",
            input=orjson.dumps(given or {}),
        )
        run = replace(run, **changes)
        created = self.services.store.create(start(run, self.hand.now(), self.services.timings))
        stored = self.services.database.collection("executions").find_one({"_id": run.id})
        assert stored is not None
        self.hand.at = max(self.hand.at, stored_at_of(stored))
        return created

    def read(self, run: Execution) -> ExecutionRecord:
        """Answer a run as it stands."""
        record = self.services.store.read(PUBLIC_INTEGRATOR, run.id)
        assert record is not None
        return record

    def lose(self, run: Execution, step: str = "s1") -> None:
        """Have the reconciler take a step whose worker is late, and may be renewing its lease at this very moment."""

        def is_taken() -> bool:
            later = self.hand.forward(2)
            seen = self.services.store.load(run.integrator, run.id)
            assert seen is not None
            return (
                settle(self.services.store, seen, lambda at: rescue(at, step, later, self.services.timings)) is not None
            )

        wait_until(is_taken, what=f"{step} is lost")

    def bell(self, run: Execution, step: str = "s1") -> TaskMessage:
        """Answer the bell of a step."""
        return TaskMessage(PUBLIC_INTEGRATOR, run.id, step, self.hand.now())

    def fresh_clock(self) -> Services:
        """Answer the services with a clock that has not looked yet, as another process has."""
        return replace(self.services, clock=ServerClock(self.hand.now, sync_every_s=1e9))


@pytest.fixture
def bench(redis_url: str, mongodb_url: str) -> Iterator[Bench]:
    # Of now, for mongod fills in when it stored something by its own clock.
    hand = HandClock(datetime.now(UTC).replace(microsecond=0))
    settings = Settings(redis_url=redis_url, mongodb_url=mongodb_url, agents_dir=AGENTS, **SETTINGS)  # type: ignore[arg-type]
    services = bootstrap(settings, "worker")
    with closing(services.database), closing(services.redis):
        services.database.ensure_indexes()
        clock = ServerClock(hand.now, sync_every_s=0)
        store = FaultyStore(MongoExecutionStore(services.database, clock))
        batches = FaultyStore(services.bulk)
        # A view is shown however long its write took: a machine that stood still would show none, and mend that later.
        # That those of a process which stood still are not shown is the publisher's own test.
        publisher = Publisher(services.redis, services.views, FleetMetrics(), view_age_max_s=60)
        services = replace(services, clock=clock, store=store, bulk=batches, publisher=publisher)  # type: ignore[arg-type]
        yield Bench(services, store, batches, hand, load_agents(services.catalogue))


@pytest.fixture
def patient(bench: Bench) -> None:
    """Let nothing be given back, written early or renewed because the machine is busy; to be asked for by name."""
    bench.unwritten_max_s = 60
    bench.services = replace(bench.services, settings=replace(bench.services.settings, heartbeat_s=60))
