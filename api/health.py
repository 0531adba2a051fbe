"""Health, readiness and metrics: for people, load balancers and Prometheus; each replies within 3 s in any case.

The schemas of the replies are ``Health`` and ``Ready`` in ``api/openapi/fleet/schemas.py``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

import flask
from redis import Redis

from api.auth.current_caller import current_caller
from api.fleet.fleet_state_metrics import FleetStateMetrics
from api.fleet.health_parts import HealthPart, HealthParts, PartStatus, overall_status
from api.http.request_body import Blueprint
from api.store_watcher import StoreWatcher
from shared.domain.access.caller import PUBLIC_CALLER, Role
from shared.errors import Unavailable
from shared.live.providers.provider_metrics import ProviderCollector
from shared.live.providers.provider_states import with_missing
from shared.live.redis_monitor import RedisMonitor
from shared.outbound_hosts import OutboundHosts
from shared.store.database import Database
from shared.telemetry import request_metrics
from shared.telemetry.fleet_collector import FleetCollector

VERSION: Final = version("bucket")
WITH_WORD: Final = ("mongodb", "redis", "workers")
"""The parts that are ``connected`` or ``disconnected`` in ``services``, for callers of earlier releases."""


def blueprint(
    parts: HealthParts,
    database: Database,
    monitor: RedisMonitor,
    store_watcher: StoreWatcher,
    outbound_hosts: OutboundHosts,
) -> Blueprint:
    """Return the routes of health and readiness; ``outbound_hosts`` are dependencies before any agent calls them."""
    blp = Blueprint("health", __name__, description="Health and readiness")
    hosts = sorted({origin.provider for origin in outbound_hosts.origins})

    @blp.route("/health")
    def health() -> tuple[flask.Response, dict[str, str]]:
        """Return the state of each part; always 200. Without a key, if keys are required, only the status."""
        providers = with_missing(monitor.last.providers, hosts)
        found = parts.check(providers)
        status = overall_status(found)
        if current_caller() is PUBLIC_CALLER:
            return flask.jsonify(status=status), {"Cache-Control": "no-store"}
        views = {part.name: _part_view(part) for part in found}
        words = {name: _word(part) for part in found if (name := part.name) in WITH_WORD}
        dependencies = [
            {"name": provider.name, "state": provider.state, "critical": provider.is_critical} for provider in providers
        ]
        reply = flask.jsonify(
            status=status,
            reasons=[part.detail for part in found if part.is_amiss],
            services=views | words,
            parts=views,
            dependencies=dependencies,
            version=VERSION,
        )
        return reply, {"Cache-Control": "no-store"}

    @blp.route("/ready")
    def ready() -> tuple[flask.Response, dict[str, str]]:
        """Return whether runs can be accepted: 503 without MongoDB or Redis; workers do not count."""
        connected = {"Redis": monitor.last.is_connected, "MongoDB": database.is_connected()}
        missing = [name for name, is_up in connected.items() if not is_up]
        if missing:
            raise Unavailable(f"not ready: {' and '.join(missing)} away")
        if not store_watcher.is_prepared:
            raise Unavailable("not ready: MongoDB is not prepared yet; the log says what it refuses")
        return flask.jsonify(status="ready"), {"Cache-Control": "no-store"}

    return blp


def _part_view(part: HealthPart) -> dict[str, str]:
    return {"status": part.status, "criticality": part.criticality, "detail": part.detail}


def _word(part: HealthPart) -> str:
    """Return the word for a part that had one before parts were objects (docs/decisions/0021-parts-of-health.md)."""
    return "connected" if part.status is PartStatus.HEALTHY else "disconnected"


def metrics_blueprint(redis: Redis, monitor: RedisMonitor, fleet_state: FleetStateMetrics) -> Blueprint:
    """Return the metrics route that Prometheus scrapes; it exists only at the root, without a version prefix."""
    blp = Blueprint("metrics", __name__, description="Metrics for Prometheus")

    @blp.route("/metrics")
    def figures() -> flask.Response:
        """Return the metrics of all processes in the text format of Prometheus."""
        # Without a key the caller comes from one of BUCKET_METRICS_NETWORKS, which sees what an admin sees.
        caller = current_caller()
        names_all = caller is PUBLIC_CALLER or caller.role is Role.ADMIN
        state = fleet_state.read(names_consumers=names_all)
        fleet = FleetCollector(
            redis, names_baskets=names_all, depths=state.depths, is_writable=monitor.last.is_connected
        )
        return flask.Response(
            request_metrics.render_exposition(fleet, state, ProviderCollector(redis)),
            content_type=request_metrics.CONTENT_TYPE,
        )

    return blp
