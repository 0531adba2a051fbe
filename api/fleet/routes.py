"""GET /workers and GET /executions/stats: who works, what waits and runs, and what happened lately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import flask
import redis

from api.auth.current_caller import current_caller
from api.auth.requested_scope import INTEGRATOR_PARAMETER, requested_scope
from api.fleet.fleet_stats import FleetStats
from api.fleet.worker_views import reconciler_view, worker_view
from api.http import query_params
from api.http.cache_control import private_no_cache
from api.http.request_body import Blueprint
from shared.bootstrap import Services
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.errors import Unavailable
from shared.live.presence.worker_presence import read_fleet
from shared.suggestions import closest_matches

SLOTS_PER_WORKER_MAX: Final = 1_000
SERIES_WINDOWS: Final = ("1h", "24h")
_QUEUE: Final = "queue"
_SLOTS_PER_WORKER: Final = "slots_per_worker"
_SERIES: Final = "series"


def blueprint(services: Services, stats: FleetStats) -> Blueprint:
    """Return the routes."""
    blp = Blueprint("fleet", __name__, description="Workers, reconcilers, and the figures of the queues")

    @blp.route("/workers")
    def workers() -> flask.Response:
        """List the workers and reconcilers that are present, and what each worker runs."""
        query_params.check_known(INTEGRATOR_PARAMETER)
        scope = requested_scope(current_caller())
        try:
            fleet = read_fleet(services.redis)
        except redis.RedisError as error:
            raise Unavailable("Redis, which knows the workers, does not answer; ask again in a moment") from error
        return private_no_cache(
            flask.jsonify(
                workers=[worker_view(worker, scope) for worker in fleet.workers],
                reconcilers=list(map(reconciler_view, fleet.reconcilers)),
            )
        )

    @blp.route("/executions/stats")
    def executions_stats() -> flask.Response:
        """Count the executions by status, queue and basket, and those of the last minutes, hour and day."""
        query_params.check_known(_QUEUE, _SLOTS_PER_WORKER, _SERIES, INTEGRATOR_PARAMETER)
        scope = requested_scope(current_caller())
        slots = query_params.integer(_SLOTS_PER_WORKER, minimum=1, maximum=SLOTS_PER_WORKER_MAX)
        queue, series = _one_of(_QUEUE, QUEUE_NAMES), _one_of(_SERIES, SERIES_WINDOWS)
        return private_no_cache(flask.jsonify(stats.report(scope, queue, slots, series)))

    return blp


def _one_of(parameter: str, names: Sequence[str]) -> str | None:
    name = query_params.text(parameter)
    if name is not None and name not in names:
        nearest = closest_matches(name, names)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        query_params.raise_invalid(parameter, f"must be one of {', '.join(names)}{hint}")
    return name
