"""Builds what a process works with: the one place where ports meet their adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import redis
import stamina
import structlog
from stamina.instrumentation import StructlogOnRetryHook

from shared.catalogue.agent_catalogue import Catalogue, load_catalogue
from shared.catalogue.seed_baskets import seed_baskets
from shared.domain.execution import PUBLIC
from shared.domain.lifecycle.timings import Terms
from shared.errors import BucketError
from shared.live.publisher import Publisher
from shared.live.redis_client import connect
from shared.live.views import Views
from shared.settings import Settings
from shared.store.agent_memory_store import MongoMemory
from shared.store.basket_store import MongoBaskets
from shared.store.database import Database
from shared.store.executions.bulk import MongoBatches
from shared.store.executions.checkpoint_store import MongoCheckpoints
from shared.store.executions.dead_letter_store import MongoDeadLetters
from shared.store.executions.queries import MongoMany
from shared.store.executions.store import MongoStore
from shared.store.feed.consumer_store import MongoConsumers
from shared.store.feed.reader import MongoFeed
from shared.store.feed.writer import FeedLog
from shared.store.server_clock import StoreClock
from shared.telemetry.fleet_metrics import FleetMetrics

API_DEADLINE_S: Final = 0.8


@dataclass(frozen=True, slots=True)
class Services:
    """What a process works with; nothing in it has connected yet, so that it may cross a fork."""

    settings: Settings
    terms: Terms
    catalogue: Catalogue
    database: Database
    clock: StoreClock
    store: MongoStore
    batches: MongoBatches
    many: MongoMany
    baskets: MongoBaskets
    dead_letters: MongoDeadLetters
    feed: MongoFeed
    feed_log: FeedLog
    consumers: MongoConsumers
    checkpoints: MongoCheckpoints
    memory: MongoMemory
    redis: redis.Redis
    views: Views
    publisher: Publisher

    def prepare(self) -> None:
        """Make the indexes, seed the baskets and begin the feed; raises MongoDB's error where it does not answer.

        So the feed begins before the first run is accepted, whether or not a reconciler is there yet. Where it cannot,
        runs go on without it: a relay begins it later, and until then nobody is given a cursor.
        """
        self.database.ensure_indexes()
        for basket in seed_baskets(self.catalogue):
            self.baskets.seed(PUBLIC, basket)
        try:
            self.feed_log.ensure_begun()
        except BucketError as refused:
            structlog.get_logger().warning("the change feed could not begin", reason=refused.message)


def bootstrap(settings: Settings, role: str) -> Services:
    """Answer the services of a process; ``role`` is api, worker or reconciler and decides how long it waits."""
    stamina.instrumentation.set_on_retry_hooks([StructlogOnRetryHook])  # its figure has a series for each attempt
    is_worker, is_api = role == "worker", role == "api"
    # Two heartbeats that nobody answers still leave a third before the lease is over.
    deadline_s = API_DEADLINE_S if is_api else min(max(1.0, 0.8 * settings.heartbeat_s), 8.0)
    database = Database(settings.mongodb_url, role, deadline_s, retries=not is_api)
    # The API's keeper and each look of a reconciler ask the clock themselves, and must see it jump.
    clock = StoreClock(database.ask_clock, every_s=settings.heartbeat_s if is_worker else math.inf)
    if is_worker:
        database.when_lost = clock.distrust
    client = connect(settings.redis_url, timeout_s=0.5 if is_api else 1.0)
    store = MongoStore(database, clock)
    views = Views(client, live_s=settings.lease_s / 2)
    return Services(
        settings=settings,
        terms=Terms(
            lease=timedelta(seconds=settings.lease_s),
            handoff=timedelta(seconds=settings.handoff_s),
            losses_max=settings.losses_max,
        ),
        catalogue=load_catalogue(settings.agents_dir),
        database=database,
        clock=clock,
        store=store,
        batches=MongoBatches(database),
        many=MongoMany(database, clock, store),
        baskets=MongoBaskets(database),
        dead_letters=MongoDeadLetters(database, clock),
        feed=MongoFeed(database),
        feed_log=FeedLog(database, clock),
        consumers=MongoConsumers(database, clock),
        checkpoints=MongoCheckpoints(database, clock),
        memory=MongoMemory(database, clock),
        redis=client,
        views=views,
        publisher=Publisher(client, views, FleetMetrics()),
    )
