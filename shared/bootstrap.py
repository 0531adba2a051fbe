"""Builds what a process works with: the one place where ports meet their adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import redis

from shared.catalogue.baskets import seed_baskets
from shared.catalogue.specs import Catalogue, load_catalogue
from shared.domain.execution import PUBLIC
from shared.domain.terms import Terms
from shared.live.connection import connect
from shared.live.publisher import Publisher
from shared.live.views import Views
from shared.settings import Settings
from shared.store.baskets import MongoBaskets
from shared.store.clock import StoreClock
from shared.store.database import Database
from shared.store.mongo import MongoStore
from shared.telemetry.fleet import FleetMetrics

DEADLINE_S: Final = {"api": 0.8, "worker": 8.0, "reconciler": 8.0}


@dataclass(frozen=True, slots=True)
class Services:
    """What a process works with; nothing in it has connected yet, so that it may cross a fork."""

    settings: Settings
    terms: Terms
    catalogue: Catalogue
    database: Database
    clock: StoreClock
    store: MongoStore
    baskets: MongoBaskets
    redis: redis.Redis
    views: Views
    publisher: Publisher
    figures: FleetMetrics

    def prepare(self) -> None:
        """Make the indexes and seed the baskets, where MongoDB answers; raises its error where it does not."""
        self.database.ensure_indexes()
        for basket in seed_baskets(self.catalogue):
            self.baskets.seed(PUBLIC, basket)


def bootstrap(settings: Settings, role: str) -> Services:
    """Answer the services of a process; ``role`` is api, worker or reconciler and decides how long it waits."""
    database = Database(settings.mongodb_url, role, DEADLINE_S[role])
    asked_every_s = math.inf if role == "api" else settings.heartbeat_s  # the API has a keeper that asks
    clock = StoreClock(database.ask_clock, every_s=asked_every_s)
    client = connect(settings.redis_url)
    views = Views(client, live_s=settings.lease_s / 2)
    figures = FleetMetrics()
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
        store=MongoStore(database, clock),
        baskets=MongoBaskets(database),
        redis=client,
        views=views,
        publisher=Publisher(client, views, figures),
        figures=figures,
    )
