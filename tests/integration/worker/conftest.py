"""Fixtures for a worker's parts over a real MongoDB and a real Redis, with a clock that a test moves by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from shared.bootstrap import Services, bootstrap
from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.definitions.basket import SEQUENTIAL, Basket, BasketStep
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, ExecutionRecord
from shared.domain.lifecycle.transitions import rescue, start
from shared.domain.status import ExecutionStatus
from shared.ids import new_execution_id
from shared.live.publisher import Publisher
from shared.queue.message import TaskMessage
from shared.settings import Settings
from shared.store.executions.documents import encode_new_document, stored_at_of
from shared.store.executions.settle import settle
from shared.store.executions.store import MongoExecutionStore
from shared.store.server_clock import ServerClock
from shared.telemetry.fleet_counters import FleetCounters
from tests.api_client import AGENTS
from tests.builders import ManualClock
from tests.faulty_store import FaultyStore
from tests.waiting import wait_until
from worker.agent_loader import Agent, load_agents
from worker.steps import batch_runner, batch_writer, pending_writes
from worker.steps.pending_writes import WRITE_DELAY_MAX_S
from worker.steps.runner import Runner
from worker.supervision.shared_slots import SharedSlots
from worker.supervision.step_interrupter import StepInterrupter

SETTINGS = {"lease_s": 0.8, "heartbeat_s": 0.2, "handoff_s": 0.2}


@dataclass
class WorkerHarness:
    """The services of a worker, with a store that can fail, and builders of runs, messages and runners."""

    services: Services
    store: FaultyStore
    batches: FaultyStore
    clock: ManualClock
    agents: Mapping[str, Agent]

    def runner(self, **instead: Callable[..., Any]) -> Runner:
        """Return a runner, with other callables for some agents."""
        agents = {name: replace(agent, run=instead.get(name, agent.run)) for name, agent in self.agents.items()}
        slots = SharedSlots(1)
        interrupter = StepInterrupter(slots, slots.slot(0), grace_s=1, drain_s=1)
        return Runner(self.services, agents, interrupter, QUEUE_NAMES)

    def accept(self, *agents: str, given: Mapping[str, Any] | None = None, **changes: Any) -> Execution:
        """Store a run of a chain of agents, as the API would; sends no message."""
        steps: list[BasketStep] = []
        for number, agent in enumerate(agents or ("echo",), 1):
            steps.append(BasketStep(f"s{number}", agent, needs=tuple(step.id for step in steps[-1:])))
        run = Execution(
            id=new_execution_id(self.clock.now()),
            integrator=PUBLIC_INTEGRATOR,
            basket=Basket("bench", SEQUENTIAL, tuple(steps)),
            status=ExecutionStatus.QUEUED,
            steps={},
            created_at=self.clock.now(),
            request_id="req-bench",
            input=orjson.dumps(given or {}),
        )
        run = replace(run, **changes)
        created = self.services.store.create(start(run, self.clock.now(), self.services.timings))
        stored = self.services.database.collection("executions").find_one({"_id": run.id})
        assert stored is not None
        self.clock.current = max(self.clock.current, stored_at_of(stored))
        return created

    def read(self, run: Execution) -> ExecutionRecord:
        """Return a run as it is stored."""
        record = self.services.store.read(PUBLIC_INTEGRATOR, run.id)
        assert record is not None
        return record

    def lose_worker(self, run: Execution, step: str = "s1") -> None:
        """Rescue a step whose lease has ended, as the reconciler would; its worker may be renewing it meanwhile."""

        def is_taken() -> bool:
            later = self.clock.advance(2)
            execution = self.services.store.load(run.integrator, run.id)
            assert execution is not None
            return (
                settle(
                    self.services.store,
                    execution,
                    lambda execution: rescue(execution, step, later, self.services.timings),
                )
                is not None
            )

        wait_until(is_taken, what=f"{step} is lost")

    def writes(self) -> int:
        """Return how many writes of decisions were made so far, single and in bulk."""
        return int(self.store.calls["save"] + self.batches.calls["save_all"])

    def message_of(self, run: Execution, step: str = "s1") -> TaskMessage:
        """Return the task message of a step."""
        return TaskMessage(PUBLIC_INTEGRATOR, run.id, step, self.clock.now())

    def fresh_clock(self) -> Services:
        """Return the services with a clock that has not read the time yet, as in another process."""
        return replace(self.services, clock=ServerClock(self.clock.now, sync_every_s=1e9))


@pytest.fixture
def bench(redis_url: str, mongodb_url: str) -> Iterator[WorkerHarness]:
    # Near the real time, because mongod fills in `stored_at` by its own clock.
    hand = ManualClock(datetime.now(UTC).replace(microsecond=0))
    settings = Settings(redis_url=redis_url, mongodb_url=mongodb_url, agents_dir=AGENTS, **SETTINGS)  # type: ignore[arg-type]
    services = bootstrap(settings, "worker")
    with closing(services.database), closing(services.redis):
        services.database.ensure_indexes()
        clock = ServerClock(hand.now, sync_every_s=0)
        store = FaultyStore(MongoExecutionStore(services.database, clock))
        batches = FaultyStore(services.bulk)
        # Views are published however long their write took, else a test would fail on a machine that stood still. The
        # publisher's own test covers the limit.
        publisher = Publisher(
            services.redis, services.views, FleetCounters(), view_age_max_s=60, encode_accepted=encode_new_document
        )
        services = replace(services, clock=clock, store=store, bulk=batches, publisher=publisher)  # type: ignore[arg-type]
        yield WorkerHarness(services, store, batches, hand, load_agents(services.catalogue))


@pytest.fixture
def claims_first(bench: WorkerHarness) -> None:
    """Make no agent idempotent, so that every step is claimed before it begins."""
    entries = [
        replace(entry, spec=replace(entry.spec, capabilities=replace(entry.spec.capabilities, idempotent=False)))
        for entry in bench.services.catalogue._entries.values()
    ]
    bench.services = replace(bench.services, catalogue=AgentCatalogue(entries))


@pytest.fixture
def long_handoff(bench: WorkerHarness) -> timedelta:
    """Make the hand-off time so long that it is not over because of a busy machine; return it."""
    timings = replace(bench.services.timings, handoff=timedelta(seconds=60))
    bench.services = replace(bench.services, timings=timings)
    return timings.handoff


@pytest.fixture(params=["claims_first", "long_handoff"])
def either_way(request: pytest.FixtureRequest) -> bool:
    """Run the test both ways; return whether claims are deferred."""
    request.getfixturevalue(request.param)
    return bool(request.param == "long_handoff")


@pytest.fixture
def long_delays(bench: WorkerHarness) -> Iterator[None]:
    """Make delays so long that a busy machine causes no release, early write or renewal; not used by default."""
    set_write_delay(60)
    bench.services = replace(bench.services, settings=replace(bench.services.settings, heartbeat_s=60))
    yield
    set_write_delay(WRITE_DELAY_MAX_S)


def set_write_delay(seconds: float) -> None:
    """Set how long a decision may wait before it is written."""
    for module in (batch_runner, batch_writer, pending_writes):
        vars(module)["WRITE_DELAY_MAX_S"] = seconds
