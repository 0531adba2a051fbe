"""Builds the embedded stack from the settings: the servers that it runs itself, then the API and the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compose.embedded import api_port, bucket_process_plans, server_plans
from compose.embedded.process_plan import Stage
from compose.operator_error import OperatorError
from shared.settings import Settings

# Added to the processes' own shutdown time, so that their orderly shutdown comes before the kill.
_STOP_MARGIN_S: Final = 5.0
_DEVELOPMENT_DRAIN_S: Final = "3"


@dataclass(frozen=True, slots=True)
class Stack:
    """What to run; the stage of a server that is not started here has no children."""

    url: str
    redis_url: str
    mongodb_url: str
    redis_stage: Stage
    mongod_stage: Stage
    app_stage: Stage


def build_stack(
    settings: Settings, environ: Mapping[str, str], sockets: Path, data: Path, *, key: str | None = None
) -> Stack:
    """Return the stack for ``settings``; servers whose URLs are in ``environ`` are used and not started.

    ``key`` is the API key for the checks of the start, if requests need one. Raises OperatorError in production, where
    the embedded servers must not be used, and if a server cannot be found.
    """
    if settings.environment == "production":
        raise OperatorError(
            "BUCKET_ENV=production: the embedded servers are without passwords and for development only",
            fix="deploy with compose/compose.yaml or the Procfile (docs/deploy.md), or leave BUCKET_ENV out",
        )
    redis_url, mongodb_url = environ.get("REDIS_URL"), environ.get("MONGODB_URL")
    redis_stage = Stage("redis", () if redis_url else (server_plans.redis_plan(sockets, data / "redis"),))
    mongod_stage = Stage("mongod", () if mongodb_url else (server_plans.mongod_plan(sockets, data / "mongod"),))
    url = api_port.local_url(settings.host, settings.port)
    env = {
        "BUCKET_DRAIN_S": _DEVELOPMENT_DRAIN_S,  # a stop by Ctrl-C should not take half a minute
        **environ,
        "BUCKET_AUTH": "required" if settings.requires_key else "off",
        "HOST": settings.host,
        "PORT": str(settings.port),
        "REDIS_URL": redis_url or server_plans.redis_url(sockets),
        "MONGODB_URL": mongodb_url or server_plans.mongodb_url(sockets),
        "PROMETHEUS_MULTIPROC_DIR": str(data / "metrics"),  # a fixed path, so that the next start finds and empties it
        "PYTHONUNBUFFERED": "1",
    }
    return Stack(url, env["REDIS_URL"], env["MONGODB_URL"], redis_stage, mongod_stage, build_app_stage(url, env, key))


def build_app_stage(url: str, env: Mapping[str, str], key: str | None = None) -> Stage:
    """Return the stage of the API and a worker that embeds the reconciler, both with the environment ``env``."""
    stop_timeout_s = float(env["BUCKET_DRAIN_S"]) + _STOP_MARGIN_S
    return Stage(
        "api and workers",
        (
            bucket_process_plans.api_plan(url, env, stop_timeout_s),
            bucket_process_plans.worker_plan(url, env, stop_timeout_s, key=key, with_reconciler=True),
        ),
    )
