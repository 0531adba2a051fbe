"""Composition root: builds the services of a process, and is the only place that connects them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import redis
import stamina
import structlog
from stamina.instrumentation import StructlogOnRetryHook

from shared.catalogue.agent_catalogue import AgentCatalogue, load_catalogue
from shared.catalogue.seed_baskets import load_seed_baskets
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.lifecycle.timings import Timings
from shared.errors import BucketError
from shared.live.publisher import Publisher, encode_no_copy
from shared.live.redis_client import connect
from shared.live.views import ViewCache
from shared.sealing import Sealer
from shared.settings import Settings
from shared.store.access.audit_sequencer import AuditSequencer
from shared.store.access.audit_store import MongoAuditStore
from shared.store.access.integration_store import MongoIntegrationStore
from shared.store.access.key_store import MongoKeyStore
from shared.store.agent_memory_store import MongoAgentMemory
from shared.store.basket_store import MongoBasketStore
from shared.store.database import Database
from shared.store.executions.bulk import MongoBulkExecutionStore
from shared.store.executions.checkpoint_store import MongoCheckpointStore
from shared.store.executions.dead_letter_store import MongoDeadLetterStore
from shared.store.executions.documents import encode_new_document
from shared.store.executions.erasure_store import MongoErasureStore
from shared.store.executions.failure_store import MongoFailureStore
from shared.store.executions.payload_seal import PayloadSeal
from shared.store.executions.queries import MongoExecutionQueries
from shared.store.executions.store import MongoExecutionStore
from shared.store.executions.usage import MongoUsage
from shared.store.feed.consumer_store import MongoConsumerStore
from shared.store.feed.reader import FeedReader
from shared.store.feed.writer import FeedWriter
from shared.store.fleet.backlog import MongoBacklog
from shared.store.server_clock import ServerClock
from shared.telemetry.fleet_counters import FleetCounters
from shared.telemetry.tracing.tracer import Tracer, open_tracer

API_STORE_DEADLINE_S: Final = 0.8


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one process; building them opens no connection, so that they may cross a fork."""

    settings: Settings
    timings: Timings
    catalogue: AgentCatalogue
    sealer: Sealer
    database: Database
    clock: ServerClock
    store: MongoExecutionStore
    bulk: MongoBulkExecutionStore
    queries: MongoExecutionQueries
    baskets: MongoBasketStore
    dead_letters: MongoDeadLetterStore
    feed_reader: FeedReader
    feed_writer: FeedWriter
    consumers: MongoConsumerStore
    checkpoints: MongoCheckpointStore
    agent_memory: MongoAgentMemory
    failures: MongoFailureStore
    keys: MongoKeyStore
    integrations: MongoIntegrationStore
    usage: MongoUsage
    backlog: MongoBacklog
    audit: MongoAuditStore
    audit_sequencer: AuditSequencer
    erasures: MongoErasureStore
    redis: redis.Redis
    views: ViewCache
    publisher: Publisher
    tracer: Tracer | None = None
    """Makes spans; None unless OpenTelemetry is configured."""

    def prepare(self) -> None:
        """Create the indexes, seed the baskets and start the change feed; raises BucketError if MongoDB fails.

        So the feed starts before the first run is accepted, even if no reconciler runs yet. If the feed cannot start,
        runs go on without it: a relay starts it later, and until then no cursor is given out.
        """
        self.database.ensure_indexes()
        for basket in load_seed_baskets(self.catalogue):
            self.baskets.seed(PUBLIC_INTEGRATOR, basket)
        try:
            self.feed_writer.ensure_started()
        except BucketError as error:
            structlog.get_logger().warning("the change feed could not be started", reason=error.message)


def bootstrap(settings: Settings, role: str) -> Services:
    """Build the services of a process; ``role`` is api, worker, reconciler or operator and decides the timeouts."""
    # Not its metric: it has a series for each attempt.
    stamina.instrumentation.set_on_retry_hooks([StructlogOnRetryHook])
    is_worker, is_api = role == "worker", role == "api"
    # After two heartbeats without a reply there must be time for a third before the lease ends.
    deadline_s = API_STORE_DEADLINE_S if is_api else min(max(1.0, 0.8 * settings.heartbeat_s), 8.0)
    database = Database(settings.mongodb_url, role, deadline_s, retries=not is_api)
    # The API's StoreWatcher and each pass of a reconciler read the server's clock themselves, to see it jump.
    clock = ServerClock(database.read_server_time, sync_every_s=settings.heartbeat_s if is_worker else math.inf)
    if is_worker:
        database.on_failure = clock.invalidate
    redis_client = connect(
        settings.redis_url, timeout_s=0.5 if is_api else 1.0, connections_max=128 + settings.held_polls
    )
    sealer = Sealer(settings.encryption_keys, seals_payloads=settings.encrypt_payloads)
    payload_seal = PayloadSeal(sealer)
    store = MongoExecutionStore(database, clock, payload_seal)
    tracer = open_tracer(role, os.environ)
    views = ViewCache(redis_client, live_ttl_s=settings.lease_s / 2)
    return Services(
        settings=settings,
        timings=_timings_of(settings),
        catalogue=load_catalogue(settings.agents_dir),
        sealer=sealer,
        database=database,
        clock=clock,
        store=store,
        bulk=MongoBulkExecutionStore(database, payload_seal),
        queries=MongoExecutionQueries(database, clock, store, payload_seal),
        baskets=MongoBasketStore(database),
        dead_letters=MongoDeadLetterStore(database, clock),
        feed_reader=FeedReader(database),
        feed_writer=FeedWriter(database, clock),
        consumers=MongoConsumerStore(database, clock),
        checkpoints=MongoCheckpointStore(database, clock),
        agent_memory=MongoAgentMemory(database, clock),
        failures=MongoFailureStore(database),
        keys=MongoKeyStore(database),
        integrations=MongoIntegrationStore(database),
        usage=MongoUsage(database),
        backlog=MongoBacklog(database),
        audit=MongoAuditStore(database),
        audit_sequencer=AuditSequencer(database),
        erasures=MongoErasureStore(database),
        redis=redis_client,
        views=views,
        publisher=Publisher(
            redis_client,
            views,
            FleetCounters(),
            # A copy for the worker would hold outputs in clear.
            encode_accepted=encode_no_copy if sealer.seals_payloads else encode_new_document,
            tracer=tracer,
        ),
        tracer=tracer,
    )


def _timings_of(settings: Settings) -> Timings:
    return Timings(
        lease=timedelta(seconds=settings.lease_s),
        handoff=timedelta(seconds=settings.handoff_s),
        losses_max=settings.losses_max,
    )
